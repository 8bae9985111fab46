//! The outbox in SQLite. The lock on the data directory is the lease: this process leads every shard, alone.

use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use minishop_core::ids::OrderId;
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::super::columns::{self, outbox_columns, past_order_columns};
use super::super::{
    Acknowledged, Leadership, Led, NewEvent, Outbox, OutboxRow, OutboxStats, PastOrder, Renewal, Result, Role, Span,
};
use super::bulk::Bulk;
use super::{Db, failed, hex};

static INSERT: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "INSERT INTO outbox_event (shard, number, event_id, topic, record_key, order_id, order_version, payload, headers, \
         trace, created_at)",
        "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        "",
    )
});

// The one writer is the lock of every shard.
const LAST: &str = "SELECT s.shard, coalesce((SELECT e.number FROM outbox_event e WHERE e.shard = s.shard \
    ORDER BY e.number DESC LIMIT 1), s.acknowledged) FROM outbox_shard s WHERE s.shard IN (SELECT value FROM json_each(?1))";

const LED: &str = "SELECT shard, acknowledged FROM outbox_shard ORDER BY shard";

const READ: &str = concat!(
    "SELECT ",
    outbox_columns!(),
    " FROM outbox_event WHERE shard = ?1 AND number >= ?2 AND number < ?3 ORDER BY number LIMIT ?4"
);

const PAST_ORDERS: &str = concat!(
    "SELECT ",
    past_order_columns!(),
    " FROM json_each(?1) k CROSS JOIN orders o ON o.order_id = unhex(k.value) \
     LEFT JOIN timeline t ON t.order_id = o.order_id AND t.version = o.version"
);

const ACKNOWLEDGE: &str = "UPDATE outbox_shard SET acknowledged = ?3 WHERE shard = ?1 AND acknowledged = ?2";

const BEARS: &str = "SELECT event_id FROM outbox_event WHERE shard = ?1 AND number > ?2 AND number <= ?3 ORDER BY number";

const REMOVE: &str = "DELETE FROM outbox_event WHERE shard = ?1 AND number >= ?2 AND number < ?3";

const STATS: &str = "SELECT coalesce(sum(max(coalesce((SELECT e.number FROM outbox_event e WHERE e.shard = s.shard \
    ORDER BY e.number DESC LIMIT 1), 0) - s.acknowledged, 0)), 0), \
    min((SELECT e.created_at FROM outbox_event e WHERE e.shard = s.shard AND e.number > s.acknowledged ORDER BY e.number LIMIT 1)) \
    FROM outbox_shard s";

/// Appends events in their order and returns their numbers, in the same order.
pub(super) async fn append(connection: &mut SqliteConnection, events: &[&NewEvent], now: i64) -> sqlx::Result<Vec<i64>> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let shards: BTreeSet<i16> = events.iter().map(|event| event.shard).collect();
    let last = sqlx::query_as::<_, (i16, i64)>(LAST).bind(serde_json::json!(shards).to_string());
    let mut last: HashMap<i16, i64> = last.fetch_all(&mut *connection).await?.into_iter().collect();
    let mut numbered = Vec::with_capacity(events.len());
    for event in events {
        let number =
            last.get_mut(&event.shard).ok_or_else(|| sqlx::Error::Decode("the store has no such outbox shard".into()))?;
        *number += 1;
        numbered.push((*number, *event));
    }
    for (sql, rows) in INSERT.chunks(&numbered) {
        let mut query = sqlx::query(sql);
        for (number, event) in rows {
            query = query
                .bind(event.shard)
                .bind(*number)
                .bind(event.event_id.0)
                .bind(&event.topic)
                .bind(&event.record_key[..])
                .bind(event.order_id.map(|id| id.0))
                .bind(event.order_version)
                .bind(event.payload.as_deref().filter(|_| event.brief.is_none()))
                .bind(event.brief.is_none().then_some(&event.headers[..]))
                .bind(event.brief.as_ref().and_then(|brief| brief.trace.as_deref()))
                .bind(now);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(numbered.into_iter().map(|(number, _)| number).collect())
}

/// Stores one shard's progress; returns `false` if the store is not the one that the caller knows.
async fn acknowledge(connection: &mut SqliteConnection, to: &Acknowledged) -> sqlx::Result<bool> {
    let moved = sqlx::query(ACKNOWLEDGE).bind(to.shard).bind(to.low).bind(to.high());
    if moved.execute(&mut *connection).await?.rows_affected() == 0 {
        return Ok(false);
    }
    let bears = sqlx::query_scalar::<_, Uuid>(BEARS).bind(to.shard).bind(to.low).bind(to.high());
    if !bears.fetch_all(&mut *connection).await?.into_iter().eq(to.events.iter().map(|id| id.0)) {
        return Ok(false);
    }
    sqlx::query(REMOVE).bind(to.shard).bind(to.low).bind(to.high()).execute(connection).await?;
    Ok(true)
}

#[async_trait]
impl Outbox for Db {
    async fn lead(&self, _owner: &str, _roles: &[Role], _renewal: &Renewal) -> Result<Leadership> {
        let rows = sqlx::query_as::<_, (i16, i64)>(LED).fetch_all(&self.readers).await.map_err(failed("outbox.lead"))?;
        let shards =
            rows.into_iter().map(|(shard, acknowledged)| Led { shard, epoch: 0, acknowledged, surplus: false }).collect();
        Ok(Leadership { shards, others_write: false })
    }

    async fn release(&self, _owner: &str) -> Result<()> {
        Ok(())
    }

    async fn read(&self, spans: &[Span], limit: i64) -> Result<Vec<OutboxRow>> {
        const OPERATION: &str = "outbox.read";
        let mut rows = Vec::new();
        // One snapshot for each shard is enough: numbers are ordered within a shard only.
        for span in spans {
            let query = sqlx::query(READ).bind(span.shard).bind(span.low).bind(span.high).bind(limit);
            rows.extend(query.fetch_all(&self.readers).await.map_err(failed(OPERATION))?);
        }
        columns::all(OPERATION, &rows, columns::outbox_row)
    }

    async fn past_orders(&self, ids: &[OrderId]) -> Result<Vec<PastOrder>> {
        const OPERATION: &str = "outbox.past_orders";
        let ids: Vec<_> = ids.iter().map(|id| hex(id.0.as_bytes())).collect();
        let query = sqlx::query(PAST_ORDERS).bind(serde_json::Value::from(ids).to_string());
        let rows = query.fetch_all(&self.readers).await.map_err(failed(OPERATION))?;
        columns::all(OPERATION, &rows, columns::past_order)
    }

    async fn acknowledge(&self, _owner: &str, published: &[Acknowledged]) -> Result<bool> {
        const OPERATION: &str = "outbox.acknowledge";
        let mut unit = self.writer.unit(OPERATION).await?;
        for to in published {
            if !unit.step(OPERATION, async |connection| acknowledge(connection, to).await).await? {
                // Dropping the unit rolls it back.
                return Ok(false);
            }
        }
        unit.commit(OPERATION).await.map(|()| true)
    }

    fn connections(&self) -> u64 {
        // The file is locked for as long as the process runs.
        0
    }

    async fn stats(&self) -> Result<OutboxStats> {
        const OPERATION: &str = "outbox.stats";
        let (depth, oldest): (i64, Option<i64>) =
            sqlx::query_as(STATS).fetch_all(&self.readers).await.and_then(super::first).map_err(failed(OPERATION))?;
        let age = oldest.map_or(0, |oldest| self.now() - oldest);
        Ok(OutboxStats { depth, oldest: Duration::from_millis(u64::try_from(age).unwrap_or(0)) })
    }

    async fn vacuum(&self) -> Result<bool> {
        // SQLite reuses freed pages by itself.
        Ok(true)
    }
}
