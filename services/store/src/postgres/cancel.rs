//! Cancels in PostgreSQL: one statement, which the server commits or not, whatever happens to this process.

use async_trait::async_trait;
use sqlx::PgConnection;

use super::super::{Cancels, Result, StoreError, Transition};
use super::error::{Lost, failed};
use super::session::{Kept, SILENCE, Session};

// A dead event of the order would block its key for ever, one that waits for a retry until then: both become due at once, and
// handling them does nothing. A transaction that gives the event up at this moment locks the order; this statement's snapshot is
// older and shows the event as it was. So it takes all rows of the order, whatever their state, and the CASEs decide by the
// current row (PostgreSQL rereads a row that another transaction has changed). The shard is locked last: `given` needs the count
// of everything that was written before.
const CANCEL: &str = "WITH done AS (UPDATE orders SET status = $3, version = version + 1, settled_event_id = $4 \
    WHERE order_id = $1 AND status = 'created' AND version = $2 RETURNING order_id, version, created_event_id), \
    noted AS (INSERT INTO timeline (order_id, version, kind, at, cause, detail) \
    SELECT order_id, version, $3, $5, $6, $7::jsonb FROM done RETURNING 1), \
    due AS (UPDATE parked p SET state = CASE p.state WHEN 'dead' THEN 'retrying' ELSE p.state END, \
    attempts = CASE p.state WHEN 'dead' THEN 0 ELSE p.attempts END, \
    next_attempt_at = CASE WHEN p.state = 'dead' OR (p.state = 'retrying' AND p.leased_until IS NULL) THEN clock_timestamp() \
    ELSE p.next_attempt_at END \
    FROM done WHERE p.order_id = $1 AND (p.blocks OR p.event_id = done.created_event_id) RETURNING 1), \
    written AS MATERIALIZED (SELECT (SELECT count(*) FROM noted) + (SELECT count(*) FROM due) AS rows), \
    given AS MATERIALIZED (SELECT d.order_id, d.version, (outbox_last(ARRAY[$8]::smallint[]))[1] AS last \
    FROM done d, written w WHERE w.rows > 0), \
    queued AS (INSERT INTO outbox_event (shard, number, event_id, topic, record_key, order_id, order_version, payload, headers) \
    SELECT $8, last + 1, $4, $9, $10, order_id, version, $11, $12 FROM given RETURNING number) SELECT number FROM queued";

/// One connection for cancels, replaced after it is lost.
pub(super) struct PgCancels {
    kept: Kept,
}

impl PgCancels {
    pub(super) async fn connect(session: Session) -> Result<Self> {
        Ok(Self { kept: Kept::connect(session, "orders.cancels").await? })
    }
}

#[async_trait]
impl Cancels for PgCancels {
    async fn cancel(&mut self, change: &Transition, detail: &str) -> Result<Option<i64>> {
        const OPERATION: &str = "orders.cancel";
        let mut connection = self.kept.take(OPERATION).await?;
        let silent = |_| StoreError::Unknown { operation: OPERATION, source: anyhow::anyhow!("no answer within {SILENCE:?}") };
        let place = tokio::time::timeout(SILENCE, cancel(&mut connection, change, detail)).await.map_err(silent)?;
        let place = place.map_err(failed(OPERATION, Lost::Commit))?;
        self.kept.keep(connection);
        Ok(place)
    }
}

async fn cancel(connection: &mut PgConnection, change: &Transition, detail: &str) -> sqlx::Result<Option<i64>> {
    let event = &change.event;
    sqlx::query_scalar(CANCEL)
        .bind(change.order_id.0)
        .bind(change.expected_version)
        .bind(change.to.as_str())
        .bind(event.event_id.0)
        .bind(change.at)
        .bind(change.cause.0)
        .bind(detail)
        .bind(event.shard)
        .bind(&event.topic)
        .bind(&event.record_key[..])
        .bind(event.payload.as_deref())
        .bind(&event.headers[..])
        .fetch_optional(connection)
        .await
}
