//! The audit of operators' actions.

use anyhow::Context as _;
use minishop_core::ids::{ClientId, CorrelationId, OperationId};

use super::super::Result;
use super::super::columns::Columns as _;
use super::super::database::{Arg, Row, Statement, Work};
use super::{AuditRow, Operations, RequestedBy};

static WRITE: Statement = Statement::new(
    "INSERT INTO audit (at, action, client_id, operator, reason, outcome, operation_id, detail, correlation_id) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
);

static LIST: Statement = Statement::new(
    "SELECT id, at, action, client_id, operator, reason, correlation_id, outcome, operation_id, detail FROM audit \
     WHERE id < $1 ORDER BY id DESC LIMIT $2",
);

impl Operations {
    /// Reads audit rows with an id below `before`, newest first.
    pub async fn audit(&self, before: Option<i64>, limit: i64) -> Result<Vec<AuditRow>> {
        let args = vec![Arg::Long(before.unwrap_or(i64::MAX)), Arg::Long(limit)];
        self.0.all("operations.audit", &LIST, args, audit_row).await
    }

    /// Writes the audit row of an action that belongs to no operation.
    pub async fn write_audit(&self, row: &AuditRow) -> Result<()> {
        let mut work = self.0.begin("operations.write_audit").await?;
        write(work.as_mut(), row).await?;
        work.commit().await
    }
}

/// Writes an audit row within a transaction.
pub(super) async fn write(work: &mut dyn Work, row: &AuditRow) -> Result<()> {
    let args = vec![
        Arg::Time(Some(row.at)),
        Arg::text(&row.action),
        Arg::text(&row.requested_by.client_id.0),
        Arg::text(&row.requested_by.operator),
        Arg::text(&row.requested_by.reason),
        Arg::text(&row.outcome),
        Arg::Id(row.operation_id.map(|id| id.0)),
        Arg::Text(row.detail.clone()),
        Arg::text(row.requested_by.correlation_id.as_str()),
    ];
    work.run(&WRITE, args).await.map(drop)
}

/// Client, operator, reason, correlation id, from column `at` on.
pub(super) fn requested_by(row: &Row, at: usize) -> anyhow::Result<RequestedBy> {
    Ok(RequestedBy {
        client_id: ClientId(row.text(at)?.to_owned()),
        operator: row.text(at + 1)?.to_owned(),
        reason: row.text(at + 2)?.to_owned(),
        correlation_id: CorrelationId::parse(row.text(at + 3)?).context("malformed correlation id")?,
    })
}

fn audit_row(row: &Row) -> anyhow::Result<AuditRow> {
    Ok(AuditRow {
        id: row.long(0)?,
        at: row.time(1)?,
        action: row.text(2)?.to_owned(),
        requested_by: requested_by(row, 3)?,
        outcome: row.text(7)?.to_owned(),
        operation_id: row.maybe_id(8)?.map(OperationId),
        detail: row.maybe_text(9)?.map(str::to_owned),
    })
}
