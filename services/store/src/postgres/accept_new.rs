//! Acceptance of a batch whose keys are all new, as nearly all are: the function `accept_new` (migration 14). It needs neither the
//! joins nor the look-ups of the statement that leaves out orders whose key exists.

use std::collections::HashMap;

use minishop_core::ids::OrderId;
use sqlx::PgConnection;

use super::super::NewOrder;
use super::error::{UNIQUE_VIOLATION, has_code};
use super::events::{Places, column};

const ACCEPT_NEW: &str = "SELECT accept_new($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)";

/// Returns whether the batch is one that the function can write: with brief events, as the API builds them, for one topic.
pub(super) fn takes(batch: &[NewOrder]) -> bool {
    let topic = batch.first().map(|order| &order.event.topic);
    batch.iter().all(|o| o.event.brief.is_some() && o.event.order_id == Some(o.head.order_id) && Some(&o.event.topic) == topic)
}

/// Accepts the orders and returns the outbox numbers of their events; `None` if a key exists, and nothing was written.
pub(super) async fn run(connection: &mut PgConnection, batch: &[NewOrder]) -> sqlx::Result<Option<HashMap<OrderId, i64>>> {
    let Some(first) = batch.first() else { return Ok(Some(HashMap::new())) };
    let places = Places::of(batch.iter().map(|order| order.event.shard));
    let query = sqlx::query_scalar::<_, Vec<i64>>(ACCEPT_NEW)
        .bind(column(batch, |o| o.head.order_id.0))
        .bind(column(batch, |o| &*o.head.client_id.0))
        .bind(column(batch, |o| o.head.key.as_str()))
        .bind(column(batch, |o| &o.fingerprint.0[..]))
        .bind(column(batch, |o| &*o.head.customer_id))
        .bind(column(batch, |o| o.head.currency.as_deref()))
        .bind(column(batch, |o| o.head.total_minor))
        .bind(column(batch, |o| &*o.items))
        .bind(column(batch, |o| o.head.correlation_id.as_str()))
        .bind(column(batch, |o| o.traceparent.as_deref()))
        .bind(column(batch, |o| o.head.created_at))
        .bind(column(batch, |o| o.event.event_id.0))
        .bind(column(batch, |o| &o.event.record_key[..]))
        .bind(column(batch, |o| o.event.shard))
        .bind(&places.of_events)
        .bind(column(batch, |o| o.event.brief.as_ref().and_then(|brief| brief.trace.as_deref())))
        .bind(&first.event.topic)
        .bind(&places.shards);
    let lasts = match query.fetch_one(connection).await {
        Err(error) if has_code(&error, UNIQUE_VIOLATION) => return Ok(None),
        lasts => lasts?,
    };
    let numbers = places.numbers(&lasts);
    Ok(Some(batch.iter().map(|order| order.head.order_id).zip(numbers).collect()))
}
