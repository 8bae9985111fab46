//! `orders.created`: its value and headers, built from an order. The API writes it once per order; a replay writes the same bytes
//! again.

use bytes::Bytes;
use minishop_bus::HeaderWriter;
use minishop_contracts::events::v1::{OrderCreated, OrderItem};
use minishop_contracts::events::{CREATED_V1, Head, encode_created};
use minishop_contracts::headers::kafka as names;
use minishop_contracts::key::EventKey;
use minishop_core::clock::Timestamp;
use minishop_core::idempotency::IdempotencyKey;
use minishop_core::ids::{ClientId, CorrelationId, EventId, OrderId};
use minishop_core::money;
use minishop_core::order::Item;
use minishop_store::shard_of;
use minishop_store::{NewEvent, Role};

use super::headers::{self, EventHeaders};
use crate::telemetry::propagation::TraceContext;

/// The version of a new order.
pub const FIRST_VERSION: i32 = 1;

/// The order data in its first event.
#[derive(Debug, Clone, Copy)]
pub struct NewOrderFacts<'a> {
    /// The order.
    pub order_id: OrderId,
    /// The event's id.
    pub event_id: EventId,
    /// When it was accepted.
    pub at: Timestamp,
    /// The order's owner.
    pub client_id: &'a ClientId,
    /// The customer.
    pub customer_id: &'a str,
    /// The lines.
    pub items: &'a [Item],
    /// The total in minor units.
    pub total_minor: i64,
    /// The currency's code, if one was given.
    pub currency: Option<&'a str>,
    /// The currency's decimals.
    pub scale: u32,
    /// The request's idempotency key.
    pub key: &'a IdempotencyKey,
    /// The request's correlation id.
    pub correlation_id: &'a CorrelationId,
    /// The request's trace.
    pub trace: Option<&'a TraceContext>,
}

/// Builds the events of new orders. Holds the headers common to all.
#[derive(Debug)]
pub struct CreatedEvents {
    topic: String,
    key: EventKey,
    constant: HeaderWriter,
}

impl CreatedEvents {
    /// Prepares the constant headers for a topic (prefix included).
    pub fn new(topic: String, key: EventKey) -> Self {
        let mut constant = headers::constant(Role::Api);
        constant.put(names::CE_TYPE, CREATED_V1.as_bytes());
        constant.put(names::CE_SEQUENCE, FIRST_VERSION.to_string().as_bytes());
        Self { topic, key, constant }
    }

    /// Builds the event.
    pub fn event(&self, order: &NewOrderFacts<'_>) -> NewEvent {
        let order_id = order.order_id.to_string();
        let event_id = order.event_id.to_string();
        let record_key = Bytes::copy_from_slice(self.key.pick(order.customer_id, &order_id).as_bytes());
        let head = Head {
            event_id: &event_id,
            occurred_at: order.at.into(),
            correlation_id: order.correlation_id.as_str(),
            idempotency_key: order.key.as_str(),
        };
        let event_headers = EventHeaders {
            event_id: &event_id,
            order_id: &order_id,
            at: order.at,
            client: &order.client_id.0,
            correlation_id: order.correlation_id.as_str(),
            // A request has no id except its correlation id.
            causation_id: order.correlation_id.as_str(),
            trace: order.trace,
        };
        let headers = event_headers.finish(self.constant.clone());
        NewEvent {
            shard: shard_of(Role::Api, &record_key),
            event_id: order.event_id,
            topic: self.topic.clone(),
            record_key,
            order_id: Some(order.order_id),
            order_version: Some(FIRST_VERSION),
            payload: Some(encode_created(&head, &data(order, order_id)).into()),
            headers,
        }
    }
}

fn data(order: &NewOrderFacts<'_>, order_id: String) -> OrderCreated {
    let items = order.items.iter().map(|item| OrderItem {
        product_id: item.product_id.clone(),
        qty: item.qty,
        price: Some(money::to_major(item.price_minor, order.scale)),
    });
    OrderCreated {
        order_id,
        customer_id: order.customer_id.to_owned(),
        items: items.collect(),
        total: Some(money::to_major(order.total_minor, order.scale)),
        currency: order.currency.map(str::to_owned),
    }
}
