//! The statements of an operation's steps, and what their rows mean.

use bytes::Bytes;
use minishop_core::ids::{EventId, OrderId};

use super::super::super::columns::{self, Columns as _};
use super::super::super::database::{Row, Statement};
use super::super::DiscardCandidate;

pub(super) static OPEN: Statement = Statement::new("SELECT id FROM operation WHERE ended_at IS NULL ORDER BY id LIMIT 1");

pub(super) static CLAIM: Statement = Statement::new(
    "UPDATE operation SET lease_epoch = lease_epoch + CASE WHEN owner = $3 THEN 0 ELSE 1 END, owner = $3, \
     leased_until = @later1 WHERE id IN (SELECT id FROM operation WHERE ended_at IS NULL \
     AND (owner IS NULL OR owner = $3 OR leased_until < @now1) ORDER BY state = 'paused', id LIMIT $4 @skip) \
     RETURNING id, lease_epoch",
);

pub(super) static GIVE_BACK: Statement = Statement::new("UPDATE operation SET owner = NULL WHERE owner = $1 RETURNING id");

pub(super) static FENCE: Statement =
    Statement::new("SELECT state FROM operation WHERE id = $1 AND lease_epoch = $2 AND ended_at IS NULL @lock");

// A row that is gone was processed. One that has an error again, or waits for a newer worker, has failed.
pub(super) static DECIDE: Statement = Statement::new(
    "UPDATE operation_item SET state = CASE WHEN EXISTS (SELECT 1 FROM parked p WHERE p.id = operation_item.parked_id) \
     THEN 'failed' ELSE 'succeeded' END, reason = coalesce((SELECT coalesce(p.error_code, p.error_class, '') FROM parked p \
     WHERE p.id = operation_item.parked_id), '') WHERE operation_id = $1 AND state = 'released' AND NOT EXISTS \
     (SELECT 1 FROM parked p WHERE p.id = operation_item.parked_id AND p.state = 'retrying' \
     AND coalesce(p.error_class, p.error_code) IS NULL) RETURNING parked_id",
);

pub(super) static PENDING: Statement = Statement::new(
    "SELECT parked_id FROM operation_item WHERE operation_id = $1 AND state = 'pending' ORDER BY parked_id LIMIT $2",
);

// Clears the error, so that a new one stands out; the dead-letter record and the timeline keep the old one.
pub(super) static RELEASE: Statement = Statement::new(
    "UPDATE parked SET state = 'retrying', attempts = 0, redrives = redrives + 1, next_attempt_at = @now1, \
     leased_until = NULL, lease_epoch = lease_epoch + 1, error_class = NULL, error_code = NULL, error_message = NULL, \
     error_fingerprint = NULL WHERE id @any2 AND state = 'dead' AND redrives < $3 \
     RETURNING id, event_id, order_id, EXISTS (SELECT 1 FROM orders o WHERE o.order_id = parked.order_id \
     AND o.created_event_id = parked.event_id), redrives",
);

pub(super) static MARK: Statement =
    Statement::new("UPDATE operation_item SET state = $2, reason = $3 WHERE operation_id = $1 AND parked_id @any4");

pub(super) static DISCARD_CANDIDATES: Statement = Statement::new(concat!(
    "SELECT ",
    columns::origin_columns!(),
    ", i.parked_id, coalesce(p.event_id, i.event_id), coalesce(p.event_id = o.created_event_id, false) FROM operation_item i \
     LEFT JOIN parked p ON p.id = i.parked_id LEFT JOIN orders o ON o.order_id = p.order_id \
     WHERE i.operation_id = $1 AND i.state = 'pending' ORDER BY i.parked_id LIMIT $2",
));

pub(super) static HOLD: Statement = Statement::new("SELECT order_id FROM orders WHERE order_id = $1 @lock");

pub(super) static DELETE: Statement = Statement::new(
    "DELETE FROM parked WHERE id = $1 AND event_id = $2 AND state = 'dead' RETURNING consumer, record_key, blocks, event_id, order_id, topic, \
     partition, source_offset, coalesce(error_code, '')",
);

pub(super) static NEXT_OF_KEY: Statement = Statement::new(
    "UPDATE parked SET next_attempt_at = @now1 WHERE id = (SELECT min(id) FROM parked WHERE consumer = $2 \
     AND record_key = $3 AND blocks) AND state <> 'dead' AND next_attempt_at IS NULL",
);

pub(super) static END: Statement = Statement::new(
    "UPDATE operation SET ended_at = @now1, state = CASE WHEN state = 'stopped' THEN 'stopped' ELSE 'done' END WHERE id = $2",
);

/// A dead letter that was made due again.
pub(in super::super) struct Released {
    pub id: i64,
    pub event_id: EventId,
    pub order_id: Option<OrderId>,
    /// Whether it is the event that announced its order. A refused copy that only names an order is not.
    pub announced: bool,
    /// How often it was redriven, this time included.
    pub redrives: i32,
}

pub(super) fn released(row: &Row) -> sqlx::Result<Released> {
    Ok(Released {
        id: row.long(0)?,
        event_id: EventId(row.id(1)?),
        order_id: row.maybe_id(2)?.map(OrderId),
        announced: row.flag(3)?,
        redrives: row.int(4)?,
    })
}

/// A row that was deleted from the lot.
pub(in super::super) struct DeletedEvent {
    pub consumer: String,
    pub record_key: Bytes,
    pub blocks: bool,
    pub event_id: EventId,
    pub order_id: Option<OrderId>,
    pub position: (String, i32, i64),
    pub error_code: String,
}

pub(super) fn deleted(row: &Row) -> sqlx::Result<DeletedEvent> {
    Ok(DeletedEvent {
        consumer: row.text(0)?.to_owned(),
        record_key: Bytes::copy_from_slice(row.bytes(1)?),
        blocks: row.flag(2)?,
        event_id: EventId(row.id(3)?),
        order_id: row.maybe_id(4)?.map(OrderId),
        position: (row.text(5)?.to_owned(), row.int(6)?, row.long(7)?),
        error_code: row.text(8)?.to_owned(),
    })
}

/// Reads the columns of `columns::origin`, all null without an order, then id of the row, event id, announced.
pub(super) fn discard_candidate(row: &Row) -> anyhow::Result<DiscardCandidate> {
    let order = row.maybe_id(0)?.map(|_| columns::origin(row)).transpose()?;
    Ok(DiscardCandidate { parked_id: row.long(15)?, event_id: EventId(row.id(16)?), announced: row.flag(17)?, order })
}
