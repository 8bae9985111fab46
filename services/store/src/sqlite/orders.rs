//! Orders in SQLite: acceptance, and reads of many orders.

use std::collections::HashMap;
use std::sync::LazyLock;

use async_trait::async_trait;
use minishop_core::idempotency::IdempotencyKey;
use minishop_core::ids::{ClientId, OrderId};
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::super::columns;
use super::super::{Cancels, Changed, Intake, KeyRecord, NewEvent, NewOrder, Orders, Result};
use super::bulk::Bulk;
use super::cancel::SqliteCancels;
use super::{Db, failed, hex, outbox};

static INSERT: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "INSERT INTO orders (order_id, client_id, idempotency_key, fingerprint, customer_id, status, version, currency, \
         total_minor, items, correlation_id, traceparent, created_event_id, created_at)",
        "(?, ?, ?, ?, ?, 'created', 1, ?, ?, ?, ?, ?, ?, ?)",
        "ON CONFLICT DO NOTHING RETURNING order_id",
    )
});

const BY_KEYS: &str = "SELECT o.client_id, o.idempotency_key, o.order_id, o.fingerprint, o.total_minor, o.currency \
    FROM json_each(?1) k CROSS JOIN orders o ON o.client_id = k.value ->> 0 AND o.idempotency_key = k.value ->> 1";

const CHANGED: &str = concat!(
    "SELECT ",
    columns::order_columns!(),
    ", t.at FROM json_each(?1) k \
     CROSS JOIN orders o ON o.order_id = unhex(k.value ->> 0) AND o.version > k.value ->> 1 \
     LEFT JOIN timeline t ON t.order_id = o.order_id AND t.version = o.version"
);

/// An update: a transaction that is rolled back writes nothing, and so works on a full disk.
const PROBE: &str = "UPDATE probe SET at = ?1, filler = zeroblob(?2)";

#[derive(Debug)]
struct SqliteIntake(Db);

#[async_trait]
impl Intake for SqliteIntake {
    async fn accept(&mut self, batch: &[NewOrder]) -> Result<HashMap<OrderId, i64>> {
        const OPERATION: &str = "orders.accept";
        let now = self.0.now();
        let mut unit = self.0.writer.unit(OPERATION).await?;
        let made = unit.step(OPERATION, async |connection| accept(connection, batch, now).await).await?;
        if !made.is_empty() {
            unit.commit(OPERATION).await?;
        }
        Ok(made)
    }
}

async fn accept(connection: &mut SqliteConnection, batch: &[NewOrder], now: i64) -> sqlx::Result<HashMap<OrderId, i64>> {
    let mut made = HashMap::with_capacity(batch.len());
    for (sql, rows) in INSERT.chunks(batch) {
        let mut query = sqlx::query_scalar::<_, Uuid>(sql);
        for order in rows {
            query = query
                .bind(order.head.order_id.0)
                .bind(&order.head.client_id.0)
                .bind(order.head.key.as_str())
                .bind(&order.fingerprint.0[..])
                .bind(&order.head.customer_id)
                .bind(order.head.currency.as_deref())
                .bind(order.head.total_minor)
                .bind(&order.items)
                .bind(order.head.correlation_id.as_str())
                .bind(order.traceparent.as_deref())
                .bind(order.event.event_id.0)
                .bind(order.head.created_at.timestamp_millis());
        }
        made.extend(query.fetch_all(&mut *connection).await?.into_iter().map(|id| (OrderId(id), 0)));
    }
    let new: Vec<&NewOrder> = batch.iter().filter(|order| made.contains_key(&order.head.order_id)).collect();
    let events: Vec<&NewEvent> = new.iter().map(|order| &order.event).collect();
    let places = outbox::append(connection, &events, now).await?;
    Ok(new.iter().map(|order| order.head.order_id).zip(places).collect())
}

#[async_trait]
impl Orders for Db {
    async fn intake(&self) -> Result<Box<dyn Intake>> {
        Ok(Box::new(SqliteIntake(self.clone())))
    }

    async fn by_keys(&self, keys: &[(ClientId, IdempotencyKey)]) -> Result<Vec<KeyRecord>> {
        const OPERATION: &str = "orders.by_keys";
        let rows = sqlx::query(BY_KEYS).bind(key_list(keys)).fetch_all(&self.readers).await.map_err(failed(OPERATION))?;
        columns::all(OPERATION, &rows, columns::key_record)
    }

    async fn cancels(&self) -> Result<Box<dyn Cancels>> {
        Ok(Box::new(SqliteCancels(self.clone())))
    }

    async fn changed(&self, known: &[(OrderId, i32)]) -> Result<Vec<Changed>> {
        const OPERATION: &str = "orders.changed";
        let pairs: Vec<_> = known.iter().map(|(id, version)| serde_json::json!([hex(id.0.as_bytes()), version])).collect();
        let query = sqlx::query(CHANGED).bind(serde_json::Value::from(pairs).to_string());
        let rows = query.fetch_all(&self.readers).await.map_err(failed(OPERATION))?;
        columns::all(OPERATION, &rows, columns::changed)
    }

    async fn ping(&self) -> Result<()> {
        const OPERATION: &str = "orders.ping";
        let Some(probe) = self.writer.health().probe() else { return Ok(()) };
        let query = sqlx::query(PROBE).bind(self.now()).bind(probe.bytes);
        self.writer.write(OPERATION, async |connection| query.execute(connection).await).await?;
        self.writer.health().passed(probe);
        Ok(())
    }
}

/// Writes keys as a JSON array of pairs for `json_each`.
pub(super) fn key_list(keys: &[(ClientId, IdempotencyKey)]) -> String {
    let pairs: Vec<[&str; 2]> = keys.iter().map(|(client, key)| [client.0.as_str(), key.as_str()]).collect();
    serde_json::to_string(&pairs).expect("strings are valid JSON")
}
