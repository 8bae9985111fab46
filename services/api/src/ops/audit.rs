//! The audit of operators' actions.

use minishop_contracts::ops::v1::{AuditEntry, ListAuditRequest, ListAuditResponse};
use minishop_core::refusal::Refusal;
use minishop_store::AuditRow;

use super::{limit, page, place};
use crate::app::App;
use crate::call::Call;
use crate::reads::{page_size, read};
use crate::token::List;

/// Reads a page of the audit, newest first.
pub async fn list(app: &App, call: &Call, request: ListAuditRequest) -> Result<ListAuditResponse, Refusal> {
    let list = List(&["audit", &call.client.0]);
    let before = place(call, list, &request.page_token)?.map(i64::from_be_bytes);
    let size = page_size(request.page_size);
    let rows = read(call, app.store.operations.audit(before, limit(size))).await?;
    let (entries, next_page_token) = page(rows, size, list, |row| row.id.to_be_bytes().to_vec(), entry);
    Ok(ListAuditResponse { entries, next_page_token })
}

fn entry(row: AuditRow) -> AuditEntry {
    AuditEntry {
        id: row.id.to_string(),
        at: Some(row.at.into()),
        action: row.action,
        client: row.requested_by.client_id.0,
        operator: row.requested_by.operator,
        reason: row.requested_by.reason,
        outcome: row.outcome,
        operation_id: row.operation_id.map(|id| id.to_string()).unwrap_or_default(),
        detail: row.detail.unwrap_or_default(),
        correlation_id: row.requested_by.correlation_id.as_str().to_owned(),
    }
}
