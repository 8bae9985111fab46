//! Cancels in SQLite: a unit of the writer.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::super::{Cancels, Result, Transition};
use super::{Db, outbox};

const FENCE: &str = "UPDATE orders SET status = ?3, version = version + 1, settled_event_id = ?4 \
    WHERE order_id = ?1 AND status = 'created' AND version = ?2";

const NOTE_CHANGE: &str = "INSERT INTO timeline (order_id, version, kind, at, cause, detail) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

// A dead event of the order would block its key for ever, one that waits for a retry until then: both become due at once, and
// handling them does nothing. A concurrent pass of the lot gives the event up before this unit begins, or begins after it and
// sees the order cancelled.
const DUE: &str = "UPDATE parked SET state = 'retrying', attempts = CASE state WHEN 'dead' THEN 0 ELSE attempts END, \
    next_attempt_at = ?2 WHERE order_id = ?1 AND (state = 'dead' OR (state = 'retrying' AND leased_until IS NULL)) \
    AND (blocks OR event_id = (SELECT created_event_id FROM orders WHERE order_id = ?1))";

#[derive(Debug)]
pub(super) struct SqliteCancels(pub(super) Db);

#[async_trait]
impl Cancels for SqliteCancels {
    async fn cancel(&mut self, change: &Transition, detail: &str) -> Result<Option<i64>> {
        const OPERATION: &str = "orders.cancel";
        let now = self.0.now();
        // Committed also if nothing changed: the unit that closed the fence may share the commit, and must be readable after this
        // answer.
        self.0.writer.write(OPERATION, async |connection| cancel(connection, change, detail, now).await).await
    }
}

async fn cancel(connection: &mut SqliteConnection, change: &Transition, detail: &str, now: i64) -> sqlx::Result<Option<i64>> {
    let (order, to) = (change.order_id.0, change.to.as_str());
    let fence = sqlx::query(FENCE).bind(order).bind(change.expected_version).bind(to).bind(change.event.event_id.0);
    if fence.execute(&mut *connection).await?.rows_affected() == 0 {
        return Ok(None);
    }
    let insert =
        sqlx::query(NOTE_CHANGE).bind(order).bind(change.expected_version + 1).bind(to).bind(change.at.timestamp_millis());
    insert.bind(change.cause.0).bind(detail).execute(&mut *connection).await?;
    sqlx::query(DUE).bind(order).bind(now).execute(&mut *connection).await?;
    Ok(outbox::append(connection, &[&change.event], now).await?.pop())
}
