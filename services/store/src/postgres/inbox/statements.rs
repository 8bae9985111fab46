//! The steps of a consumer transaction that decide: gate, parked keys, orders, adoption, fence. Each statement takes a batch.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use minishop_core::idempotency::IdempotencyKey;
use minishop_core::ids::{ClientId, EventId, OrderId};
use sqlx::PgConnection;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::super::super::{AdoptedOrder, Gate, InboxEntry, Transition, columns};
use super::super::events::column;

// Sorted by event id, so that two transactions over the same events wait for each other and cannot deadlock.
const GATE: &str = "INSERT INTO inbox (consumer, event_id, data_sha, order_id) \
    SELECT $1, event_id, data_sha, order_id FROM UNNEST($2::uuid[], $3::bytea[], $4::uuid[]) t(event_id, data_sha, order_id) \
    ORDER BY event_id ON CONFLICT DO NOTHING RETURNING event_id";

const SETTLED: &str = "SELECT event_id, data_sha FROM inbox WHERE consumer = $1 AND event_id = ANY($2)";

// One index lookup for each key, however many events wait behind it: the first entry at the key or after it.
const PARKED_KEYS: &str = "SELECT k.record_key FROM (SELECT DISTINCT UNNEST($2::bytea[])) k(record_key) \
    CROSS JOIN LATERAL (SELECT p.record_key, p.consumer FROM parked p WHERE p.blocks \
    AND (p.record_key, p.consumer) >= (k.record_key, $1) ORDER BY p.record_key, p.consumer, p.id LIMIT 1) p \
    WHERE p.record_key = k.record_key AND p.consumer = $1";

const BY_ID: &str = "SELECT order_id, client_id, idempotency_key, fingerprint, status, version, created_event_id \
    FROM orders WHERE order_id = ANY($1)";

// Sorted, so that two passes over the same orders wait for each other and cannot deadlock. Every transaction that changes orders
// and rows of the lot locks the orders first. A batch of the stream shares no order with a pass of the lot, except for copies
// that were refused and redriven: if these two deadlock, the victim runs again.
const HELD_BY_ID: &str = "SELECT order_id, client_id, idempotency_key, fingerprint, status, version, created_event_id \
    FROM orders WHERE order_id = ANY($1) ORDER BY order_id FOR NO KEY UPDATE";

const BY_KEY: &str = "SELECT o.order_id, o.client_id, o.idempotency_key, o.fingerprint, o.status, o.version, o.created_event_id \
    FROM UNNEST($1::text[], $2::text[]) k(client_id, idempotency_key) CROSS JOIN LATERAL (SELECT * FROM orders f \
    WHERE f.client_id = k.client_id AND f.idempotency_key = k.idempotency_key LIMIT 1) o";

const ADOPT: &str = "INSERT INTO orders (order_id, client_id, idempotency_key, fingerprint, customer_id, status, version, \
    currency, total_minor, items, correlation_id, traceparent, created_event_id, adopted, created_at) \
    SELECT order_id, client_id, idempotency_key, fingerprint, customer_id, 'created', 1, currency, total_minor, items, \
    correlation_id, traceparent, created_event_id, true, created_at \
    FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::bytea[], $5::text[], $6::text[], $7::bigint[], $8::text[], $9::text[], \
    $10::text[], $11::uuid[], $12::timestamptz[]) WITH ORDINALITY AS t(order_id, client_id, idempotency_key, fingerprint, \
    customer_id, currency, total_minor, items, correlation_id, traceparent, created_event_id, created_at, n) \
    ORDER BY n ON CONFLICT DO NOTHING RETURNING order_id";

// The update itself returns what the timeline needs: joining the batch again would be quadratic.
const SETTLE: &str = "WITH e AS (SELECT * FROM UNNEST($1::uuid[], $2::int[], $3::text[], $4::timestamptz[], $5::uuid[], $6::uuid[]) \
    WITH ORDINALITY AS t(order_id, expected, status, at, cause, event_id, n)), \
    done AS (UPDATE orders o SET status = e.status, version = o.version + 1, settled_event_id = e.event_id FROM e \
    WHERE o.order_id = e.order_id AND o.status = 'created' AND o.version = e.expected \
    RETURNING e.n, o.order_id, o.version, e.status, e.at, e.cause), \
    told AS (INSERT INTO timeline (order_id, version, kind, at, cause) SELECT order_id, version, status, at, cause FROM done \
    ORDER BY n) SELECT order_id FROM done";

pub(super) async fn gate(connection: &mut PgConnection, consumer: &str, entries: &[InboxEntry]) -> sqlx::Result<Gate> {
    let query = sqlx::query_scalar::<_, Uuid>(GATE)
        .bind(consumer)
        .bind(column(entries, |e| e.event_id.0))
        .bind(column(entries, |e| &e.data_sha[..]))
        .bind(column(entries, |e| e.order_id.map(|id| id.0)));
    let fresh: HashSet<EventId> = query.fetch_all(&mut *connection).await?.into_iter().map(EventId).collect();
    let others: Vec<EventId> = entries.iter().map(|e| e.event_id).filter(|id| !fresh.contains(id)).collect();
    let settled = if others.is_empty() { HashMap::new() } else { known_digests(connection, consumer, &others).await? };
    Ok(Gate { fresh, settled })
}

pub(super) async fn known_digests(
    connection: &mut PgConnection,
    consumer: &str,
    ids: &[EventId],
) -> sqlx::Result<HashMap<EventId, [u8; 32]>> {
    let query = sqlx::query_as::<_, (Uuid, Vec<u8>)>(SETTLED).bind(consumer).bind(column(ids, |id| id.0));
    query.fetch_all(connection).await?.into_iter().map(columns::digest).collect()
}

pub(super) async fn parked_keys(connection: &mut PgConnection, consumer: &str, keys: &[Bytes]) -> sqlx::Result<HashSet<Bytes>> {
    let query = sqlx::query_scalar::<_, Vec<u8>>(PARKED_KEYS).bind(consumer).bind(column(keys, |key| &key[..]));
    Ok(query.fetch_all(connection).await?.into_iter().map(Bytes::from).collect())
}

pub(super) async fn orders(
    connection: &mut PgConnection,
    ids: &[OrderId],
    keys: &[(ClientId, IdempotencyKey)],
    hold: bool,
) -> sqlx::Result<Vec<PgRow>> {
    let mut rows = Vec::new();
    if !ids.is_empty() {
        rows =
            sqlx::query(if hold { HELD_BY_ID } else { BY_ID }).bind(column(ids, |id| id.0)).fetch_all(&mut *connection).await?;
    }
    if !keys.is_empty() {
        let query = sqlx::query(BY_KEY).bind(column(keys, |(c, _)| &*c.0)).bind(column(keys, |(_, k)| k.as_str()));
        rows.extend(query.fetch_all(connection).await?);
    }
    columns::once_each(&mut rows);
    Ok(rows)
}

pub(super) async fn adopt(connection: &mut PgConnection, orders: &[AdoptedOrder]) -> sqlx::Result<HashSet<OrderId>> {
    // Intake writers lock the same index in this order.
    let mut orders: Vec<&AdoptedOrder> = orders.iter().collect();
    orders.sort_by(|a, b| (&a.head.client_id, &a.head.key).cmp(&(&b.head.client_id, &b.head.key)));
    let query = sqlx::query_scalar::<_, Uuid>(ADOPT)
        .bind(column(&orders, |o| o.head.order_id.0))
        .bind(column(&orders, |o| &*o.head.client_id.0))
        .bind(column(&orders, |o| o.head.key.as_str()))
        .bind(column(&orders, |o| &o.fingerprint.0[..]))
        .bind(column(&orders, |o| &*o.head.customer_id))
        .bind(column(&orders, |o| o.head.currency.as_deref()))
        .bind(column(&orders, |o| o.head.total_minor))
        .bind(column(&orders, |o| &*o.items))
        .bind(column(&orders, |o| o.head.correlation_id.as_str()))
        .bind(column(&orders, |o| o.traceparent.as_deref()))
        .bind(column(&orders, |o| o.created_event_id.0))
        .bind(column(&orders, |o| o.head.created_at));
    Ok(query.fetch_all(connection).await?.into_iter().map(OrderId).collect())
}

pub(in super::super) async fn apply(connection: &mut PgConnection, transitions: &[Transition]) -> sqlx::Result<HashSet<OrderId>> {
    let query = sqlx::query_scalar::<_, Uuid>(SETTLE)
        .bind(column(transitions, |t| t.order_id.0))
        .bind(column(transitions, |t| t.expected_version))
        .bind(column(transitions, |t| t.to.as_str()))
        .bind(column(transitions, |t| t.at))
        .bind(column(transitions, |t| t.cause.0))
        .bind(column(transitions, |t| t.event.event_id.0));
    Ok(query.fetch_all(connection).await?.into_iter().map(OrderId).collect())
}
