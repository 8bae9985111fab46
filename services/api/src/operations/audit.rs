//! The audit of operators' actions.

use minishop_contracts::ops::v1::{AuditEntry, ListAuditRequest, ListAuditResponse};
use minishop_core::refusal::Refusal;
use minishop_store::AuditRow;

use crate::app::App;
use crate::call::Call;
use crate::pages::Page;

/// Reads a page of the audit, newest first.
pub async fn audit(app: &App, call: &Call, request: ListAuditRequest) -> Result<ListAuditResponse, Refusal> {
    let page = Page::of(call, &["audit", &call.client.0], request.page_size, &request.page_token)?;
    let rows = call.read(app.store.operations.audit(page.after, page.limit())).await?;
    let (entries, next_page_token) = page.cut(rows, |row| row.id, entry);
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
