//! `orders.created`: its bytes, its headers and its place in the outbox, made once for each order.

use bytes::Bytes;
use chrono::SecondsFormat;
use minishop_contracts::events::v1::{OrderCreated, OrderItem};
use minishop_contracts::events::{CREATED_V1, Head, encode_created};
use minishop_contracts::headers::kafka as names;
use minishop_contracts::key::EventKey;
use minishop_core::clock::Timestamp;
use minishop_core::idempotency::IdempotencyKey;
use minishop_core::ids::{EventId, OrderId};
use minishop_core::money;
use minishop_core::order::CreateOrder;
use minishop_platform::bus::HeaderWriter;
use minishop_platform::relay::shard_of;
use minishop_platform::store::{NewEvent, Role};

use crate::call::Call;

/// The version of an order that was just accepted.
pub const FIRST_VERSION: i32 = 1;

/// Writes the event of a new order. Holds the headers that are the same for all.
#[derive(Debug)]
pub struct EventWriter {
    topic: String,
    key: EventKey,
    constant: HeaderWriter,
}

/// The ids and the time that were chosen for a new order.
#[derive(Debug, Clone, Copy)]
pub struct Birth {
    /// The order.
    pub order_id: OrderId,
    /// Its event.
    pub event_id: EventId,
    /// When it was accepted.
    pub at: Timestamp,
}

impl EventWriter {
    /// Prepares the constant headers for a topic (prefix included).
    pub fn new(topic: String, key: EventKey) -> Self {
        let mut constant = HeaderWriter::default();
        constant.put(names::CE_SPECVERSION, names::CE_SPECVERSION_1_0.as_bytes());
        constant.put(names::CE_SOURCE, b"/minishop/api");
        constant.put(names::CE_TYPE, CREATED_V1.as_bytes());
        constant.put(names::CE_SEQUENCE, FIRST_VERSION.to_string().as_bytes());
        Self { topic, key, constant }
    }

    /// Writes the event.
    pub fn created(&self, call: &Call, key: &IdempotencyKey, birth: Birth, order: &CreateOrder) -> NewEvent {
        let order_id = birth.order_id.to_string();
        let event_id = birth.event_id.to_string();
        let record_key = Bytes::copy_from_slice(self.key.pick(order.customer_id(), &order_id).as_bytes());
        let head = Head {
            event_id: &event_id,
            occurred_at: birth.at.into(),
            correlation_id: call.correlation_id.as_str(),
            idempotency_key: key.as_str(),
        };
        let headers = self.headers(call, birth.at, &event_id, &order_id);
        NewEvent {
            shard: shard_of(Role::Api, &record_key),
            event_id: birth.event_id,
            topic: self.topic.clone(),
            record_key,
            order_id: Some(birth.order_id),
            order_version: Some(FIRST_VERSION),
            payload: Some(encode_created(&head, &data(order, order_id)).into()),
            headers,
        }
    }

    fn headers(&self, call: &Call, at: Timestamp, event_id: &str, order_id: &str) -> Bytes {
        let mut headers = self.constant.clone();
        // The same digits as `occurredAt` in the envelope.
        headers.put(names::CE_TIME, at.to_rfc3339_opts(SecondsFormat::AutoSi, true).as_bytes());
        headers.put(names::CE_ID, event_id.as_bytes());
        headers.put(names::CE_SUBJECT, order_id.as_bytes());
        headers.put(names::CE_CLIENT, call.client.0.as_bytes());
        let correlation = call.correlation_id.as_str().as_bytes();
        headers.put(names::CORRELATION_ID, correlation);
        // A request has no id but the one that follows it everywhere.
        headers.put(names::CAUSATION_ID, correlation);
        headers.put(names::TRACEPARENT, call.trace.traceparent().as_bytes());
        if let Some(state) = call.trace.tracestate() {
            headers.put(names::TRACESTATE, state.as_bytes());
        }
        headers.finish()
    }
}

fn data(order: &CreateOrder, order_id: String) -> OrderCreated {
    let scale = order.scale();
    let items = order.items().iter().map(|item| OrderItem {
        product_id: item.product_id.clone(),
        qty: item.qty,
        price: Some(money::to_major(item.price_minor, scale)),
    });
    OrderCreated {
        order_id,
        customer_id: order.customer_id().to_owned(),
        items: items.collect(),
        total: Some(order.total()),
        currency: order.currency().map(|currency| currency.code().to_owned()),
    }
}
