//! The steps of a consumer transaction that decide: gate, parked keys, orders, adoption, fence.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use bytes::Bytes;
use minishop_core::idempotency::IdempotencyKey;
use minishop_core::ids::{ClientId, EventId, OrderId};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::super::super::{AdoptedOrder, Gate, InboxEntry, Transition, columns};
use super::super::bulk::Bulk;
use super::super::orders::key_list;
use super::super::{hex, hex_list};

static GATE: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "INSERT INTO inbox (consumer, event_id, data_sha, order_id, settled_at)",
        "(?, ?, ?, ?, ?)",
        "ON CONFLICT DO NOTHING RETURNING event_id",
    )
});

const SETTLED: &str = "SELECT i.event_id, i.data_sha FROM json_each(?2) e CROSS JOIN inbox i \
    ON i.consumer = ?1 AND i.event_id = unhex(e.value)";

const PARKED_KEYS: &str = "SELECT unhex(k.value) FROM json_each(?2) k WHERE EXISTS \
    (SELECT 1 FROM parked p WHERE p.consumer = ?1 AND p.record_key = unhex(k.value) AND p.blocks)";

const BY_ID: &str = "SELECT o.order_id, o.client_id, o.idempotency_key, o.fingerprint, o.status, o.version, o.created_event_id \
    FROM json_each(?1) i CROSS JOIN orders o ON o.order_id = unhex(i.value)";

const BY_KEY: &str = "SELECT o.order_id, o.client_id, o.idempotency_key, o.fingerprint, o.status, o.version, o.created_event_id \
    FROM json_each(?1) k CROSS JOIN orders o ON o.client_id = k.value ->> 0 AND o.idempotency_key = k.value ->> 1";

static ADOPT: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "INSERT INTO orders (order_id, client_id, idempotency_key, fingerprint, customer_id, status, version, currency, \
         total_minor, items, correlation_id, traceparent, created_event_id, adopted, created_at)",
        "(?, ?, ?, ?, ?, 'created', 1, ?, ?, ?, ?, ?, ?, 1, ?)",
        "ON CONFLICT DO NOTHING RETURNING order_id",
    )
});

// The subquery on the ids makes the planner look the orders up by key, whatever it estimates for `e`.
const FENCE: &str = "WITH e AS MATERIALIZED (SELECT unhex(value ->> 0) AS order_id, value ->> 1 AS version, \
    value ->> 2 AS status, unhex(value ->> 3) AS event_id FROM json_each(?1)) \
    UPDATE orders SET status = e.status, version = orders.version + 1, settled_event_id = e.event_id FROM e \
    WHERE orders.order_id IN (SELECT order_id FROM e) AND orders.order_id = e.order_id \
    AND orders.status = 'created' AND orders.version = e.version RETURNING orders.order_id";

static STATUS_ROW: LazyLock<Bulk> =
    LazyLock::new(|| Bulk::new("INSERT INTO timeline (order_id, version, kind, at, cause)", "(?, ?, ?, ?, ?)", ""));

pub(super) async fn gate(
    connection: &mut SqliteConnection,
    consumer: &str,
    entries: &[InboxEntry],
    now: i64,
) -> sqlx::Result<Gate> {
    let mut gate = Gate::default();
    for (sql, rows) in GATE.chunks(entries) {
        let mut query = sqlx::query_scalar::<_, Uuid>(sql);
        for entry in rows {
            query = query
                .bind(consumer)
                .bind(entry.event_id.0)
                .bind(&entry.data_sha[..])
                .bind(entry.order_id.map(|id| id.0))
                .bind(now);
        }
        gate.fresh.extend(query.fetch_all(&mut *connection).await?.into_iter().map(EventId));
    }
    let others: Vec<EventId> = entries.iter().map(|e| e.event_id).filter(|id| !gate.fresh.contains(id)).collect();
    if !others.is_empty() {
        gate.settled = known_digests(connection, consumer, &others).await?;
    }
    Ok(gate)
}

pub(super) async fn known_digests(
    connection: &mut SqliteConnection,
    consumer: &str,
    ids: &[EventId],
) -> sqlx::Result<HashMap<EventId, [u8; 32]>> {
    let ids = hex_list(ids.iter().map(|id| &id.0.as_bytes()[..]));
    let query = sqlx::query_as::<_, (Uuid, Vec<u8>)>(SETTLED).bind(consumer).bind(ids);
    query.fetch_all(connection).await?.into_iter().map(columns::digest).collect()
}

pub(super) async fn parked_keys(
    connection: &mut SqliteConnection,
    consumer: &str,
    keys: &[Bytes],
) -> sqlx::Result<HashSet<Bytes>> {
    let query = sqlx::query_scalar::<_, Vec<u8>>(PARKED_KEYS).bind(consumer).bind(hex_list(keys.iter().map(|key| &key[..])));
    Ok(query.fetch_all(connection).await?.into_iter().map(Bytes::from).collect())
}

pub(super) async fn orders(
    connection: &mut SqliteConnection,
    ids: &[OrderId],
    keys: &[(ClientId, IdempotencyKey)],
) -> sqlx::Result<Vec<SqliteRow>> {
    let mut rows = Vec::new();
    if !ids.is_empty() {
        rows = sqlx::query(BY_ID).bind(hex_list(ids.iter().map(|id| &id.0.as_bytes()[..]))).fetch_all(&mut *connection).await?;
    }
    if !keys.is_empty() {
        rows.extend(sqlx::query(BY_KEY).bind(key_list(keys)).fetch_all(connection).await?);
    }
    columns::once_each(&mut rows);
    Ok(rows)
}

pub(super) async fn adopt(connection: &mut SqliteConnection, orders: &[AdoptedOrder]) -> sqlx::Result<HashSet<OrderId>> {
    let mut made = HashSet::with_capacity(orders.len());
    for (sql, rows) in ADOPT.chunks(orders) {
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
                .bind(order.created_event_id.0)
                .bind(order.head.created_at.timestamp_millis());
        }
        made.extend(query.fetch_all(&mut *connection).await?.into_iter().map(OrderId));
    }
    Ok(made)
}

pub(in super::super) async fn apply(
    connection: &mut SqliteConnection,
    transitions: &[Transition],
) -> sqlx::Result<HashSet<OrderId>> {
    let rows: Vec<_> = transitions.iter().map(fence_row).collect();
    let query = sqlx::query_scalar::<_, Uuid>(FENCE).bind(serde_json::Value::from(rows).to_string());
    let passed: HashSet<Uuid> = query.fetch_all(&mut *connection).await?.into_iter().collect();
    let passed: Vec<&Transition> = transitions.iter().filter(|t| passed.contains(&t.order_id.0)).collect();
    for (sql, rows) in STATUS_ROW.chunks(&passed) {
        let mut query = sqlx::query(sql);
        for t in rows {
            query = query
                .bind(t.order_id.0)
                .bind(t.expected_version + 1)
                .bind(t.to.as_str())
                .bind(t.at.timestamp_millis())
                .bind(t.cause.0);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(passed.iter().map(|t| t.order_id).collect())
}

fn fence_row(t: &Transition) -> serde_json::Value {
    let (order, event) = (hex(t.order_id.0.as_bytes()), hex(t.event.event_id.0.as_bytes()));
    serde_json::json!([order, t.expected_version, t.to.as_str(), event])
}
