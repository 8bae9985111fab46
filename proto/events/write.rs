//! Encodes envelopes: exactly six keys, in a fixed order.

use serde::Serialize;

use super::kind;
use super::v1::{OrderCreated, OrderSettled};
use crate::json;
use crate::wkt::Timestamp;

/// The fields of an envelope except its type and its data.
#[derive(Clone, Copy, Debug)]
pub struct EnvelopeFields<'a> {
    pub event_id: &'a str,
    pub occurred_at: Timestamp,
    pub correlation_id: &'a str,
    pub idempotency_key: &'a str,
}

/// The envelope as written. It equals the typed messages of the proto, but borrows its parts.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a, T> {
    event_id: &'a str,
    r#type: &'a str,
    occurred_at: Timestamp,
    correlation_id: &'a str,
    idempotency_key: &'a str,
    data: &'a T,
}

/// Encodes the event of an accepted order.
pub fn encode_created(head: &EnvelopeFields<'_>, data: &OrderCreated) -> Vec<u8> {
    let lines: usize = data.items.iter().map(|item| item.product_id.len() + 64).sum();
    encode(kind::CREATED_V1, head, data, 384 + lines)
}

/// Encodes the event of an order that reached a final status; the status decides the type.
///
/// `None` if `data.status` is not final.
pub fn encode_settled(head: &EnvelopeFields<'_>, data: &OrderSettled) -> Option<Vec<u8>> {
    let kind = data.status().event_type()?;
    Some(encode(kind, head, data, 384))
}

fn encode<T: Serialize>(kind: &str, head: &EnvelopeFields<'_>, data: &T, room: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(room);
    let envelope = Envelope {
        event_id: head.event_id,
        r#type: kind,
        occurred_at: head.occurred_at,
        correlation_id: head.correlation_id,
        idempotency_key: head.idempotency_key,
        data,
    };
    json::append(&mut out, &envelope);
    out
}
