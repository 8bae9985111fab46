//! Orders and events to be stored, and the outbox.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use minishop_core::clock::{Clock, ManualClock, Timestamp, from_millis};
use minishop_core::idempotency::{Fingerprint, IdempotencyKey};
use minishop_core::ids::{ClientId, CorrelationId, EventId, OrderId};
use minishop_core::order_head::OrderHead;
use minishop_store::{Brief, NewEvent, NewOrder, OutboxRow, Role, Span, Store, shard_of};

/// Returns the time of manual clocks: 2025-10-09T08:53:20.123Z.
pub fn now() -> Timestamp {
    from_millis(1_760_000_000_123)
}

/// Returns a clock that stands still.
pub fn clock() -> Arc<dyn Clock> {
    Arc::new(ManualClock::at(now()))
}

/// Returns a number that is unique in this process.
pub fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn random() -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes[2..].copy_from_slice(&unique().to_be_bytes());
    bytes
}

/// Returns a new id of an order.
pub fn order_id() -> OrderId {
    OrderId::new(now(), random())
}

/// Returns a new id of an event.
pub fn event_id() -> EventId {
    EventId::new(now(), random())
}

/// Returns a client.
pub fn client(name: &str) -> ClientId {
    ClientId(name.to_owned())
}

/// Returns an idempotency key.
pub fn key(text: &str) -> IdempotencyKey {
    IdempotencyKey::parse(text).expect("a valid key")
}

/// Returns a new event of an order, for `orders.created`.
pub fn event(role: Role, record_key: &str, order_id: OrderId, version: i32) -> NewEvent {
    NewEvent {
        shard: shard_of(role, record_key.as_bytes()),
        event_id: event_id(),
        topic: "orders.created".into(),
        record_key: Bytes::copy_from_slice(record_key.as_bytes()),
        order_id: Some(order_id),
        order_version: Some(version),
        payload: Some(Bytes::from_static(b"{\"eventId\":\"e\"}")),
        headers: Bytes::from_static(&[0, 0, 0, 0]),
        brief: None,
    }
}

/// Returns the same event as a brief one.
pub fn brief(event: NewEvent) -> NewEvent {
    NewEvent { payload: None, headers: Bytes::new(), brief: Some(Brief::default()), ..event }
}

/// Returns the same event with a value that no store takes.
pub fn too_large(event: NewEvent) -> NewEvent {
    NewEvent { payload: Some(Bytes::from(vec![b'x'; 262_145])), brief: None, ..event }
}

/// Returns a new order of customer `c1`.
pub fn order(client_name: &str, key_text: &str) -> NewOrder {
    order_of(client_name, key_text, "c1")
}

/// Returns a new order: 2 × 10.50 EUR.
pub fn order_of(client_name: &str, key_text: &str, customer: &str) -> NewOrder {
    let id = order_id();
    NewOrder {
        head: OrderHead {
            order_id: id,
            client_id: client(client_name),
            customer_id: customer.into(),
            key: key(key_text),
            correlation_id: CorrelationId::parse("corr-1").expect("a valid id"),
            currency: Some("EUR".into()),
            total_minor: 2100,
            created_at: now(),
        },
        fingerprint: Fingerprint([7; 32]),
        items: r#"[{"productId":"p1","qty":2,"priceMinor":1050}]"#.into(),
        traceparent: None,
        event: brief(event(Role::Api, customer, id, 1)),
    }
}

/// Returns orders of one client under the keys `k000`, `k001` and so on, sorted like an intake batch.
pub fn orders(client_name: &str, range: std::ops::Range<usize>) -> Vec<NewOrder> {
    range.map(|n| order(client_name, &format!("k{n:03}"))).collect()
}

/// Returns all shards of both roles.
pub fn all_shards() -> Vec<i16> {
    Role::ALL.into_iter().flat_map(Role::shards).collect()
}

/// Reads the whole outbox, published or not, by shard and number. Brief rows are without value and headers.
pub async fn outbox(store: &Store) -> Vec<OutboxRow> {
    let spans: Vec<Span> = all_shards().into_iter().map(|shard| Span { shard, low: 1, high: i64::MAX }).collect();
    store.outbox.read(&spans, 100_000).await.expect("an answer")
}
