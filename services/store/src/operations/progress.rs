//! Reads operations, and lets operators pause, resume and cancel them.

use anyhow::Context as _;
use minishop_core::clock::Timestamp;
use minishop_core::ids::{EventId, OperationId, OrderId};
use minishop_core::operation::{ItemState, Kind, State, Tally};
use uuid::Uuid;

use super::super::Result;
use super::super::columns::{self, Columns};
use super::super::database::{Arg, Row, Statement, Work};
use super::{Item, Operation, OperationQuery, Operations, RequestedBy, SHOWN_ITEMS, audit, words};

/// The columns of [`operation`].
macro_rules! operation_columns {
    () => {
        "o.id, o.kind, o.state, o.client_id, o.operator, o.reason, o.correlation_id, o.filter, o.rate, o.failure_ratio, \
         o.created_at, o.ended_at, o.stopped_because, \
         (SELECT count(*) FROM operation_item i WHERE i.operation_id = o.id AND i.state = 'pending'), \
         (SELECT count(*) FROM operation_item i WHERE i.operation_id = o.id AND i.state = 'released'), \
         (SELECT count(*) FROM operation_item i WHERE i.operation_id = o.id AND i.state = 'succeeded'), \
         (SELECT count(*) FROM operation_item i WHERE i.operation_id = o.id AND i.state = 'failed'), \
         (SELECT count(*) FROM operation_item i WHERE i.operation_id = o.id AND i.state = 'skipped')"
    };
}

static GET: Statement = Statement::new(concat!("SELECT ", operation_columns!(), " FROM operation o WHERE o.id = $1"));

static LIST: Statement = Statement::new(concat!(
    "SELECT ",
    operation_columns!(),
    " FROM operation o WHERE o.id < $1 AND ($2 IS NULL OR o.kind = $2) AND ($3 IS NULL OR o.state = $3) \
     ORDER BY o.id DESC LIMIT $4"
));

static ITEMS: Statement = Statement::new(
    "SELECT parked_id, event_id, order_id, state, reason FROM operation_item WHERE operation_id = $1 \
     AND state IN ('failed', 'skipped') ORDER BY parked_id LIMIT $2",
);

static PAUSE: Statement =
    Statement::new("UPDATE operation SET state = 'paused' WHERE id = $1 AND state = 'running' RETURNING id");

static RESUME: Statement =
    Statement::new("UPDATE operation SET state = 'running' WHERE id = $1 AND state = 'paused' RETURNING id");

static STOP: Statement = Statement::new(
    "UPDATE operation SET state = 'stopped', stopped_because = $2 WHERE id = $1 AND state IN ('running', 'paused') \
     RETURNING id",
);

static LEAVE_REST: Statement = Statement::new(
    "UPDATE operation_item SET state = 'skipped', reason = 'STOPPED' WHERE operation_id = $1 AND state = 'pending'",
);

/// What an operator does with an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Releases no more dead letters until it is resumed.
    Pause,
    /// Continues a paused operation.
    Resume,
    /// Ends it; what was not released stays dead.
    Cancel,
}

impl Action {
    /// Returns the action's name in the audit.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
        }
    }
}

impl Operations {
    /// Reads an operation.
    pub async fn operation(&self, id: OperationId) -> Result<Option<Operation>> {
        self.0.first("operations.operation", &GET, vec![Arg::Id(Some(id.0))], operation).await
    }

    /// Reads a page of operations, newest first.
    pub async fn operations(&self, query: &OperationQuery) -> Result<Vec<Operation>> {
        let args = vec![
            Arg::Id(Some(query.before.map_or(Uuid::max(), |id| id.0))),
            Arg::Text(query.kind.map(|kind| kind.as_str().to_owned())),
            Arg::Text(query.state.map(|state| state.as_str().to_owned())),
            Arg::Long(query.limit),
        ];
        self.0.all("operations.operations", &LIST, args, operation).await
    }

    /// Reads the failed and skipped dead letters of an operation, at most [`SHOWN_ITEMS`].
    pub async fn items(&self, id: OperationId) -> Result<Vec<Item>> {
        self.0.all("operations.items", &ITEMS, vec![Arg::Id(Some(id.0)), Arg::Long(SHOWN_ITEMS)], item).await
    }

    /// Pauses, resumes or cancels an operation. One that has ended, or is in that state already, stays as it is.
    ///
    /// Returns the operation, and whether it changed; `None` when it does not exist.
    pub async fn control(
        &self,
        id: OperationId,
        action: Action,
        requested_by: &RequestedBy,
        at: Timestamp,
    ) -> Result<Option<(Operation, bool)>> {
        let mut work = self.0.begin("operations.control").await?;
        let changed = match action {
            Action::Pause => !work.run(&PAUSE, vec![Arg::Id(Some(id.0))]).await?.is_empty(),
            Action::Resume => !work.run(&RESUME, vec![Arg::Id(Some(id.0))]).await?.is_empty(),
            Action::Cancel => stop(work.as_mut(), id, "cancelled by an operator").await?,
        };
        let now = read(work.as_mut(), id.0).await?.map(|operation| (operation, changed));
        if !changed {
            work.rollback().await?;
            return Ok(now);
        }
        audit::write(work.as_mut(), &words::control(id, action, requested_by, at)).await?;
        work.commit().await?;
        Ok(now)
    }
}

/// Stops an operation that has not ended: dead letters not released stay dead, and other operations may take them.
pub(super) async fn stop(work: &mut dyn Work, id: OperationId, because: &str) -> Result<bool> {
    let stopped = !work.run(&STOP, vec![Arg::Id(Some(id.0)), Arg::text(because)]).await?.is_empty();
    if stopped {
        work.run(&LEAVE_REST, vec![Arg::Id(Some(id.0))]).await?;
    }
    Ok(stopped)
}

/// Reads an operation within a transaction.
pub(super) async fn read(work: &mut dyn Work, id: Uuid) -> Result<Option<Operation>> {
    let rows = work.run(&GET, vec![Arg::Id(Some(id))]).await?;
    columns::first("operations.read", &rows, operation)
}

fn operation(row: &Row) -> anyhow::Result<Operation> {
    let count = |n| -> anyhow::Result<usize> { Ok(usize::try_from(row.long(n)?)?) };
    Ok(Operation {
        id: OperationId(row.id(0)?),
        kind: Kind::parse(row.text(1)?).context("unknown kind")?,
        state: State::parse(row.text(2)?).context("unknown state")?,
        requested_by: audit::requested_by(row, 3)?,
        filter: row.maybe_text(7)?.map(str::to_owned),
        rate: row.int(8)?,
        failure_ratio: row.double(9)?,
        created_at: row.time(10)?,
        ended_at: row.maybe_time(11)?,
        stopped_because: row.text(12)?.to_owned(),
        tally: Tally {
            pending: count(13)?,
            released: count(14)?,
            succeeded: count(15)?,
            failed: count(16)?,
            skipped: count(17)?,
        },
    })
}

fn item(row: &Row) -> anyhow::Result<Item> {
    Ok(Item {
        parked_id: row.long(0)?,
        event_id: row.maybe_id(1)?.map(EventId),
        order_id: row.maybe_id(2)?.map(OrderId),
        state: ItemState::parse(row.text(3)?).context("unknown state")?,
        reason: row.text(4)?.to_owned(),
    })
}
