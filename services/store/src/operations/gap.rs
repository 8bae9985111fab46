//! Unreadable parts of the event log that an operator lets a consumer step over. The audit stores them: who, when and why.

use anyhow::Context as _;
use minishop_core::clock::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::Result;
use super::super::columns::Columns as _;
use super::super::database::{Arg, Row, Statement};
use super::audit::requested_by;
use super::{Operations, RequestedBy, words};

/// The most gaps that are read, newest first. An operator has requested each of them, so there are few.
const MOST: i64 = 1000;

static LIST: Statement = Statement::new(
    "SELECT detail, client_id, operator, reason, correlation_id FROM audit WHERE action = 'skip' ORDER BY id DESC LIMIT $1",
);

/// Unreadable records that a consumer steps over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    pub consumer: String,
    pub topic: String,
    pub partition: i32,
    /// The first offset that cannot be read.
    pub offset: i64,
    /// The next offset that is read.
    pub until: i64,
}

impl Operations {
    /// Stores that a consumer steps over a gap once it reaches it and cannot read it.
    pub async fn skip(&self, gap: &Gap, requested_by: RequestedBy, at: Timestamp) -> Result<()> {
        self.write_audit(&words::skip(gap, &requested_by, at)).await
    }

    /// Reads the gaps that a consumer is to step over, newest first, and who asked for each.
    pub async fn skips(&self, consumer: &str) -> Result<Vec<(Gap, RequestedBy)>> {
        let mut skips = self.0.all("operations.skips", &LIST, vec![Arg::Long(MOST)], skip).await?;
        skips.retain(|(gap, _)| gap.consumer == consumer);
        Ok(skips)
    }
}

fn skip(row: &Row) -> anyhow::Result<(Gap, RequestedBy)> {
    let detail = row.maybe_text(0)?.context("a skip has no offsets")?;
    Ok((serde_json::from_str(detail)?, requested_by(row, 1)?))
}
