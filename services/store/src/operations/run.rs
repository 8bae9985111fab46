//! The steps of an operation that a worker runs. Each is one transaction that first locks the operation's row, which reveals a
//! lost lease or an operator's pause or stop.

use std::collections::HashSet;
use std::sync::LazyLock;

use anyhow::Context as _;
use minishop_core::clock::Timestamp;
use minishop_core::crash;
use minishop_core::ids::{EventId, OperationId, OrderId};
use minishop_core::operation::{ItemState, MOST_REDRIVES, Skip, State, Tally};

use super::super::columns::{self, Columns};
use super::super::database::{Arg, Row, Statement, Work};
use super::super::{Note, Result, StoreError, Transition};
use super::{AuditRow, DiscardCandidate, Operation, Operations, Run, audit, begin, progress};

static OPEN: LazyLock<Statement> =
    LazyLock::new(|| Statement::new("SELECT id FROM operation WHERE ended_at IS NULL ORDER BY id LIMIT 1"));

static CLAIM: LazyLock<Statement> = LazyLock::new(|| {
    Statement::new(
        "UPDATE operation SET lease_epoch = lease_epoch + CASE WHEN owner = $3 THEN 0 ELSE 1 END, owner = $3, \
         leased_until = @later1 WHERE id IN (SELECT id FROM operation WHERE ended_at IS NULL \
         AND (owner IS NULL OR owner = $3 OR leased_until < @now1) ORDER BY state = 'paused', id LIMIT $4 @skip) \
         RETURNING id, lease_epoch",
    )
});

static GIVE_BACK: LazyLock<Statement> =
    LazyLock::new(|| Statement::new("UPDATE operation SET owner = NULL WHERE owner = $1 RETURNING id"));

static FENCE: LazyLock<Statement> =
    LazyLock::new(|| Statement::new("SELECT state FROM operation WHERE id = $1 AND lease_epoch = $2 AND ended_at IS NULL @lock"));

// A row that is gone was processed. One that has an error again, or waits for a newer worker, has failed.
static DECIDE: LazyLock<Statement> = LazyLock::new(|| {
    Statement::new(
        "UPDATE operation_item SET state = CASE WHEN EXISTS (SELECT 1 FROM parked p WHERE p.id = operation_item.parked_id) \
         THEN 'failed' ELSE 'succeeded' END, reason = coalesce((SELECT coalesce(p.error_code, p.error_class, '') FROM parked p \
         WHERE p.id = operation_item.parked_id), '') WHERE operation_id = $1 AND state = 'released' AND NOT EXISTS \
         (SELECT 1 FROM parked p WHERE p.id = operation_item.parked_id AND p.state = 'retrying' \
         AND coalesce(p.error_class, p.error_code) IS NULL) RETURNING parked_id",
    )
});

static PENDING: LazyLock<Statement> = LazyLock::new(|| {
    Statement::new(
        "SELECT parked_id FROM operation_item WHERE operation_id = $1 AND state = 'pending' ORDER BY parked_id LIMIT $2",
    )
});

// Clears the error, so that a new one stands out; the dead-letter record and the timeline keep the old one.
static RELEASE: LazyLock<Statement> = LazyLock::new(|| {
    Statement::new(
        "UPDATE parked SET state = 'retrying', attempts = 0, redrives = redrives + 1, next_attempt_at = @now1, \
         leased_until = NULL, lease_epoch = lease_epoch + 1, error_class = NULL, error_code = NULL, error_message = NULL, \
         error_fingerprint = NULL WHERE id @any2 AND state = 'dead' AND redrives < $3 \
         RETURNING id, event_id, order_id, EXISTS (SELECT 1 FROM orders o WHERE o.order_id = parked.order_id \
         AND o.created_event_id = parked.event_id), redrives",
    )
});

static MARK: LazyLock<Statement> = LazyLock::new(|| {
    Statement::new("UPDATE operation_item SET state = $2, reason = $3 WHERE operation_id = $1 AND parked_id @any4")
});

static DISCARD_CANDIDATES: LazyLock<Statement> = LazyLock::new(|| {
    Statement::new(
        "SELECT o.order_id, o.client_id, o.customer_id, o.status, o.version, o.currency, o.total_minor, \
         CAST(o.items AS text), o.correlation_id, o.created_at, o.idempotency_key, o.traceparent, o.created_event_id, \
         o.settled_event_id, o.adopted, i.parked_id, coalesce(p.event_id, i.event_id), \
         coalesce(p.event_id = o.created_event_id, false) FROM operation_item i \
         LEFT JOIN parked p ON p.id = i.parked_id LEFT JOIN orders o ON o.order_id = p.order_id \
         WHERE i.operation_id = $1 AND i.state = 'pending' ORDER BY i.parked_id LIMIT $2",
    )
});

static HOLD: LazyLock<Statement> = LazyLock::new(|| Statement::new("SELECT order_id FROM orders WHERE order_id = $1 @lock"));

static DELETE: LazyLock<Statement> = LazyLock::new(|| {
    Statement::new(
        "DELETE FROM parked WHERE id = $1 AND event_id = $2 AND state = 'dead' RETURNING consumer, record_key, blocks, event_id, order_id, topic, \
         partition, source_offset, coalesce(error_code, '')",
    )
});

static NEXT_OF_KEY: LazyLock<Statement> = LazyLock::new(|| {
    Statement::new(
        "UPDATE parked SET next_attempt_at = @now1 WHERE id = (SELECT min(id) FROM parked WHERE consumer = $2 \
         AND record_key = $3 AND blocks) AND state <> 'dead' AND next_attempt_at IS NULL",
    )
});

static END: LazyLock<Statement> = LazyLock::new(|| {
    Statement::new(
        "UPDATE operation SET ended_at = @now1, state = CASE WHEN state = 'stopped' THEN 'stopped' ELSE 'done' END WHERE id = $2",
    )
});

impl Operations {
    /// Takes or renews the leases of operations that have not ended, oldest first and paused ones last. Leases of other workers
    /// are taken only after they expire.
    pub async fn claim(&self, owner: &str, lease: std::time::Duration, limit: i64) -> Result<Vec<Run>> {
        const OPERATION: &str = "operations.claim";
        if self.0.read(OPERATION, &OPEN, Vec::new()).await?.is_empty() {
            return Ok(Vec::new());
        }
        let mut work = self.0.begin(OPERATION).await?;
        let seconds = i64::try_from(lease.as_secs()).unwrap_or(i64::MAX);
        let args = vec![Arg::Now, Arg::Long(seconds), Arg::text(owner), Arg::Long(limit)];
        let mut runs = Vec::new();
        for row in work.run(&CLAIM, args).await? {
            let read = || -> sqlx::Result<_> { Ok((row.id(0)?, row.long(1)?)) };
            let (id, epoch) = read().map_err(|error| StoreError::unreadable(OPERATION, error))?;
            let operation = progress::read(work.as_mut(), id).await?;
            runs.extend(operation.map(|operation| Run { operation, epoch }));
        }
        close(work, !runs.is_empty()).await?;
        runs.sort_by_key(|run| run.operation.id);
        Ok(runs)
    }

    /// Gives back all leases of a worker that ends.
    pub async fn give_back(&self, owner: &str) -> Result<()> {
        let mut work = self.0.begin("operations.give_back").await?;
        if work.run(&GIVE_BACK, vec![Arg::text(owner)]).await?.is_empty() { Ok(()) } else { work.commit().await }
    }

    /// Decides released dead letters and returns the operation; `None` when its lease is lost or it has ended.
    pub async fn decide(&self, run: &Run) -> Result<Option<Operation>> {
        let mut work = self.0.begin("operations.decide").await?;
        if fence(work.as_mut(), run).await?.is_none() {
            return Ok(None);
        }
        let decided = work.run(&DECIDE, vec![id(run)]).await?;
        let operation = progress::read(work.as_mut(), run.operation.id.0).await?;
        close(work, !decided.is_empty()).await?;
        Ok(operation)
    }

    /// Makes at most `most` of the operation's dead letters due again; returns how many, or `None` when it may not continue.
    pub async fn release(&self, run: &Run, most: usize, at: Timestamp) -> Result<Option<usize>> {
        let mut work = self.0.begin("operations.release").await?;
        if fence(work.as_mut(), run).await? != Some(State::Running) {
            return Ok(None);
        }
        let limit = Arg::Long(i64::try_from(most).unwrap_or(i64::MAX));
        let rows = work.run(&PENDING, vec![id(run), limit]).await?;
        let wanted = numbers(&rows)?;
        let args = vec![Arg::Now, Arg::Longs(wanted.clone()), Arg::Long(i64::from(MOST_REDRIVES))];
        let rows = work.run(&RELEASE, args).await?;
        let released = numbers(&rows)?;
        let left: Vec<i64> = wanted.iter().copied().filter(|id| !released.contains(id)).collect();
        let reasons = begin::reasons(work.as_mut(), &left, |_| Skip::LoopGuard).await?;
        for (skip, ids) in reasons {
            mark(work.as_mut(), run, ItemState::Skipped, skip.as_str(), ids).await?;
        }
        let count = released.len();
        mark(work.as_mut(), run, ItemState::Released, "", released).await?;
        let notes = columns::all("operations.release", &rows, |row| note_of_release(run, row, at))?;
        work.note(&notes.into_iter().flatten().collect::<Vec<_>>()).await?;
        crash::point("redrive_mid_step");
        work.commit().await?;
        Ok(Some(count))
    }

    /// Reads the next dead letters of a discard, with their orders.
    pub async fn discard_candidates(&self, run: &Run, most: usize) -> Result<Vec<DiscardCandidate>> {
        const OPERATION: &str = "operations.discard_candidates";
        let args = vec![id(run), Arg::Long(i64::try_from(most).unwrap_or(i64::MAX))];
        columns::all(OPERATION, &self.0.read(OPERATION, &DISCARD_CANDIDATES, args).await?, discard_candidate)
    }

    /// Discards one dead letter: deletes its row, changes its order if the fence holds, and makes the next event of its key due.
    ///
    /// Returns the outbox number of the order's event if the order changed; `None` when the operation may not continue.
    pub async fn discard(
        &self,
        run: &Run,
        candidate: &DiscardCandidate,
        transition: Option<&Transition>,
        at: Timestamp,
    ) -> Result<Option<Option<i64>>> {
        let mut work = self.0.begin("operations.discard").await?;
        if fence(work.as_mut(), run).await? != Some(State::Running) {
            return Ok(None);
        }
        if let Some(transition) = transition {
            // The order is locked before the lot's row, as everywhere: otherwise a cancel and this could deadlock.
            work.run(&HOLD, vec![Arg::Id(Some(transition.order_id.0))]).await?;
        }
        let deleted = work.run(&DELETE, vec![Arg::Long(candidate.parked_id), Arg::Id(Some(candidate.event_id.0))]).await?;
        let Some(row) = deleted.first() else {
            // A dead letter that exists and was not deleted is another event, to which a restore gave the same row id.
            for (skip, ids) in begin::reasons(work.as_mut(), &[candidate.parked_id], |_| Skip::NotFound).await? {
                mark(work.as_mut(), run, ItemState::Skipped, skip.as_str(), ids).await?;
            }
            work.commit().await?;
            return Ok(Some(None));
        };
        let gone = columns::one("operations.discard", row, gone)?;
        let passed = match transition {
            Some(transition) => work.apply(std::slice::from_ref(transition)).await?,
            None => HashSet::new(),
        };
        if candidate.announced {
            work.note(&note_of_discard(run, &gone, at).into_iter().collect::<Vec<_>>()).await?;
        }
        if gone.blocks {
            work.run(&NEXT_OF_KEY, vec![Arg::Now, Arg::text(&gone.consumer), Arg::Bytes(Some(gone.record_key.clone()))]).await?;
        }
        mark(work.as_mut(), run, ItemState::Succeeded, "", vec![candidate.parked_id]).await?;
        audit::write(work.as_mut(), &entry(run, "discarded", Some(gone.detail(candidate.parked_id)), at)).await?;
        let event = transition.filter(|transition| passed.contains(&transition.order_id)).map(|transition| &transition.event);
        let number = work.announce(&event.into_iter().collect::<Vec<_>>()).await?.pop();
        crash::point("discard_mid");
        work.commit().await?;
        Ok(Some(number))
    }

    /// Stops an operation early; dead letters not released stay dead. Returns `false` when the lease is lost or it had stopped.
    pub async fn stop(&self, run: &Run, because: &str, at: Timestamp) -> Result<bool> {
        let mut work = self.0.begin("operations.stop").await?;
        let stopped =
            fence(work.as_mut(), run).await?.is_some() && progress::stop(work.as_mut(), run.operation.id, because).await?;
        if stopped {
            let detail = serde_json::json!({ "because": because }).to_string();
            audit::write(work.as_mut(), &entry(run, "stopped", Some(detail), at)).await?;
            work.commit().await?;
        }
        Ok(stopped)
    }

    /// Ends an operation whose dead letters are all decided; returns `false` when the lease is lost.
    pub async fn end(&self, run: &Run, tally: &Tally, at: Timestamp) -> Result<bool> {
        let mut work = self.0.begin("operations.end").await?;
        let Some(state) = fence(work.as_mut(), run).await? else { return Ok(false) };
        work.run(&END, vec![Arg::Now, id(run)]).await?;
        if state != State::Stopped {
            let Tally { succeeded, failed, skipped, .. } = tally;
            let detail = serde_json::json!({"succeeded": succeeded, "failed": failed, "skipped": skipped}).to_string();
            audit::write(work.as_mut(), &entry(run, "done", Some(detail), at)).await?;
        }
        work.commit().await?;
        Ok(true)
    }
}

/// Commits, or rolls back a transaction that changed nothing.
pub(super) async fn close(work: Box<dyn Work>, changed: bool) -> Result<()> {
    if changed { work.commit().await } else { work.rollback().await }
}

/// Locks the operation's row; `None` when the lease is lost or the operation has ended.
async fn fence(work: &mut dyn Work, run: &Run) -> Result<Option<State>> {
    let rows = work.run(&FENCE, vec![id(run), Arg::Long(run.epoch)]).await?;
    let read = |row: &Row| State::parse(row.text(0)?).context("unknown state");
    rows.first().map(|row| columns::one("operations.fence", row, read)).transpose()
}

async fn mark(work: &mut dyn Work, run: &Run, state: ItemState, reason: &str, ids: Vec<i64>) -> Result<()> {
    work.run(&MARK, vec![id(run), Arg::text(state.as_str()), Arg::text(reason), Arg::Longs(ids)]).await.map(drop)
}

const fn id(run: &Run) -> Arg {
    Arg::Id(Some(run.operation.id.0))
}

fn numbers(rows: &[Row]) -> Result<Vec<i64>> {
    columns::all("operations.ids", rows, |row| row.long(0))
}

/// Makes the timeline note of a release. A refused copy gets none: it is not the event of the order that it names.
fn note_of_release(run: &Run, row: &Row, at: Timestamp) -> sqlx::Result<Option<Note>> {
    let Some(order_id) = row.maybe_id(2)?.filter(|_| row.flag(3).unwrap_or_default()) else { return Ok(None) };
    let detail = serde_json::json!({"operation": run.operation.id.to_string(), "redrives": row.int(4)?}).to_string();
    Ok(Some(Note { order_id: OrderId(order_id), kind: "redriven", at, cause: EventId(row.id(1)?), detail: Some(detail) }))
}

/// A row that was deleted from the lot.
struct Gone {
    consumer: String,
    record_key: bytes::Bytes,
    blocks: bool,
    event_id: EventId,
    order_id: Option<OrderId>,
    position: (String, i32, i64),
    error_code: String,
}

impl Gone {
    /// Returns what the audit must keep, since nothing else does.
    fn detail(&self, id: i64) -> String {
        let (topic, partition, offset) = &self.position;
        let order = self.order_id.map(|id| id.to_string());
        serde_json::json!({
            "deadLetterId": id.to_string(), "eventId": self.event_id.to_string(), "orderId": order, "topic": topic,
            "partition": partition, "offset": offset, "errorCode": self.error_code,
        })
        .to_string()
    }
}

fn note_of_discard(run: &Run, gone: &Gone, at: Timestamp) -> Option<Note> {
    let Operation { id, requested_by, .. } = &run.operation;
    let detail = serde_json::json!({"operation": id.to_string(), "reason": requested_by.reason}).to_string();
    Some(Note { order_id: gone.order_id?, kind: "discarded", at, cause: gone.event_id, detail: Some(detail) })
}

fn entry(run: &Run, outcome: &str, detail: Option<String>, at: Timestamp) -> AuditRow {
    let Operation { id, kind, requested_by, .. } = &run.operation;
    AuditRow {
        id: 0,
        at,
        action: kind.as_str().to_owned(),
        requested_by: requested_by.clone(),
        outcome: outcome.to_owned(),
        operation_id: Some(OperationId(id.0)),
        detail,
    }
}

fn gone(row: &Row) -> sqlx::Result<Gone> {
    Ok(Gone {
        consumer: row.text(0)?.to_owned(),
        record_key: bytes::Bytes::copy_from_slice(row.bytes(1)?),
        blocks: row.flag(2)?,
        event_id: EventId(row.id(3)?),
        order_id: row.maybe_id(4)?.map(OrderId),
        position: (row.text(5)?.to_owned(), row.int(6)?, row.long(7)?),
        error_code: row.text(8)?.to_owned(),
    })
}

/// The columns of `columns::origin`, all null without an order, then id of the row, event id, announced.
fn discard_candidate(row: &Row) -> anyhow::Result<DiscardCandidate> {
    let order = row.maybe_id(0)?.map(|_| columns::origin(row)).transpose()?;
    Ok(DiscardCandidate { parked_id: row.long(15)?, event_id: EventId(row.id(16)?), announced: row.flag(17)?, order })
}
