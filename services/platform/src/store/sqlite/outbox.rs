//! The outbox in SQLite. The lock on the data directory is the lease: this process leads every shard, alone.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::super::{Leadership, NewEvent, Outbox, OutboxRow, OutboxStats, Result, Role, SHARDS_PER_ROLE, columns};
use super::bulk::Bulk;
use super::{Db, failed};

static INSERT: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "INSERT INTO outbox (shard, event_id, topic, record_key, order_id, order_version, payload, headers, created_at)",
        "(?, ?, ?, ?, ?, ?, ?, ?, ?)",
        "RETURNING event_id, id",
    )
});

const PENDING: &str = "SELECT o.shard, o.id, o.event_id, o.topic, o.record_key, o.order_id, o.order_version, o.payload, o.headers \
    FROM json_each(?1) s CROSS JOIN outbox o \
    ON o.id IN (SELECT i.id FROM outbox i WHERE i.shard = s.value \
    AND i.id NOT IN (SELECT value FROM json_each(?3)) ORDER BY i.id LIMIT ?2) ORDER BY o.shard, o.id";

const AGED: &str = "SELECT shard, id, event_id, topic, record_key, order_id, order_version, payload, headers FROM outbox \
    WHERE shard IN (SELECT value FROM json_each(?1)) AND created_at <= ?2 ORDER BY shard, id LIMIT ?3";

const DELETE: &str = "DELETE FROM outbox WHERE id IN (SELECT value FROM json_each(?1))";

const STATS: &str = "SELECT count(*), min(created_at) FROM outbox";

/// Inserts events in their order and returns their places, in the same order.
pub(super) async fn insert(connection: &mut SqliteConnection, events: &[&NewEvent], now: i64) -> sqlx::Result<Vec<i64>> {
    let mut places = HashMap::with_capacity(events.len());
    for (sql, rows) in INSERT.chunks(events) {
        let mut query = sqlx::query_as::<_, (Uuid, i64)>(sql);
        for event in rows {
            query = query
                .bind(event.shard)
                .bind(event.event_id.0)
                .bind(&event.topic)
                .bind(&event.record_key[..])
                .bind(event.order_id.map(|id| id.0))
                .bind(event.order_version)
                .bind(event.payload.as_deref())
                .bind(&event.headers[..])
                .bind(now);
        }
        // The order of returned rows is not promised, so they are found again by their event.
        places.extend(query.fetch_all(&mut *connection).await?);
    }
    Ok(events.iter().filter_map(|event| places.get(&event.event_id.0).copied()).collect())
}

#[async_trait]
impl Outbox for Db {
    async fn lead(&self, _owner: &str, _roles: &[Role]) -> Result<Leadership> {
        Ok(Leadership { shards: (0..2 * SHARDS_PER_ROLE).collect(), alone_in: vec![Role::Api, Role::Worker] })
    }

    async fn release(&self, _owner: &str) -> Result<()> {
        Ok(())
    }

    async fn pending(&self, shards: &[i16], held: &[i64], limit: i64) -> Result<Vec<OutboxRow>> {
        const OPERATION: &str = "outbox.pending";
        let query = sqlx::query(PENDING).bind(number_list(shards)).bind(limit).bind(number_list(held));
        let rows = query.fetch_all(&self.readers).await.map_err(failed(OPERATION))?;
        columns::all(OPERATION, &rows, columns::outbox_row)
    }

    async fn aged(&self, shards: &[i16], age: Duration, limit: i64) -> Result<Vec<OutboxRow>> {
        const OPERATION: &str = "outbox.aged";
        let until = self.now() - i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let query = sqlx::query(AGED).bind(number_list(shards)).bind(until).bind(limit);
        let rows = query.fetch_all(&self.readers).await.map_err(failed(OPERATION))?;
        columns::all(OPERATION, &rows, columns::outbox_row)
    }

    async fn delete(&self, rows: &[(i16, i64)]) -> Result<()> {
        const OPERATION: &str = "outbox.delete";
        let ids: Vec<i64> = rows.iter().map(|(_, id)| *id).collect();
        let mut unit = self.writer.unit(OPERATION).await?;
        let mut step = unit.step(OPERATION).await?;
        let query = sqlx::query(DELETE).bind(number_list(&ids));
        query.execute(step.connection()).await.map_err(failed(OPERATION))?;
        step.done();
        unit.commit(OPERATION).await
    }

    async fn stats(&self) -> Result<OutboxStats> {
        const OPERATION: &str = "outbox.stats";
        let (depth, oldest): (i64, Option<i64>) =
            sqlx::query_as(STATS).fetch_all(&self.readers).await.and_then(super::first).map_err(failed(OPERATION))?;
        let age = oldest.map_or(0, |oldest| self.now() - oldest);
        Ok(OutboxStats { depth, oldest: Duration::from_millis(u64::try_from(age).unwrap_or(0)) })
    }
}

fn number_list<T: serde::Serialize>(numbers: &[T]) -> String {
    serde_json::to_string(numbers).expect("numbers are valid JSON")
}
