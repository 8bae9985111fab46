//! `orders.created`: its value and headers, built from an order. The API writes it once per order; a replay writes the same bytes
//! again, and so does the relay when it reads a brief outbox row from the table.

use bytes::Bytes;
use minishop_bus::HeaderWriter;
use minishop_contracts::events::v1::{OrderCreated, OrderItem};
use minishop_contracts::events::{CREATED_V1, EnvelopeFields, encode_created};
use minishop_contracts::headers::kafka as names;
use minishop_contracts::key::EventKey;
use minishop_core::ids::EventId;
use minishop_core::money;
use minishop_core::order::Item;
use minishop_core::order_head::OrderHead;
use minishop_store::{Brief, NewEvent, Role, shard_of};

use super::headers::{self, EventHeaders};
use crate::telemetry::propagation::TraceContext;

/// The version of a new order.
pub const FIRST_VERSION: i32 = 1;

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

    /// Builds the event of an order with the given id, lines and trace.
    pub fn event(&self, order: &OrderHead, id: EventId, items: &[Item], trace: Option<&TraceContext>) -> NewEvent {
        let order_id = order.order_id.to_string();
        let event_id = id.to_string();
        let record_key = Bytes::copy_from_slice(self.key.pick(&order.customer_id, &order_id).as_bytes());
        let head = EnvelopeFields {
            event_id: &event_id,
            occurred_at: order.created_at.into(),
            correlation_id: order.correlation_id.as_str(),
            idempotency_key: order.key.as_str(),
        };
        let event_headers = EventHeaders {
            event_id: &event_id,
            order_id: &order_id,
            at: order.created_at,
            client: &order.client_id.0,
            correlation_id: order.correlation_id.as_str(),
            // A request has no id except its correlation id.
            causation_id: order.correlation_id.as_str(),
            trace,
        };
        let headers = event_headers.finish(self.constant.clone());
        // The order has the trace, but not the vendor's part of it.
        let trace = trace.filter(|trace| trace.tracestate().is_some()).map(TraceContext::to_text);
        NewEvent {
            shard: shard_of(Role::Api, &record_key),
            event_id: id,
            topic: self.topic.clone(),
            record_key,
            order_id: Some(order.order_id),
            order_version: Some(FIRST_VERSION),
            payload: Some(encode_created(&head, &data(order, order_id, items)).into()),
            headers,
            brief: Some(Brief { trace }),
        }
    }
}

fn data(order: &OrderHead, order_id: String, items: &[Item]) -> OrderCreated {
    let scale = order.scale();
    let items = items.iter().map(|item| OrderItem {
        product_id: item.product_id.clone(),
        qty: item.qty,
        price: Some(money::to_major(item.price_minor, scale)),
    });
    OrderCreated {
        order_id,
        customer_id: order.customer_id.clone(),
        items: items.collect(),
        total: Some(money::to_major(order.total_minor, scale)),
        currency: order.currency.clone(),
    }
}
