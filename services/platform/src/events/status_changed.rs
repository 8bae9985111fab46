//! Changes of an order to a final status, each with its event. The API cancels; the worker processes and gives up. All events are
//! built here, so that they look alike.

use bytes::Bytes;
use minishop_bus::HeaderWriter;
use minishop_contracts::events::v1::{OrderSettled, order_settled};
use minishop_contracts::events::{Head, encode_settled};
use minishop_contracts::headers::kafka as names;
use minishop_contracts::key::EventKey;
use minishop_contracts::topics;
use minishop_core::clock::Timestamp;
use minishop_core::idempotency::IdempotencyKey;
use minishop_core::ids::{ClientId, CorrelationId, EventId, OrderId};
use minishop_core::order::Status;
use minishop_store::shard_of;
use minishop_store::{NewEvent, Role, Transition};

use super::headers::{self, EventHeaders};
use crate::config::Config;
use crate::telemetry::propagation::TraceContext;

/// The order data in the event of a change.
#[derive(Debug, Clone, Copy)]
pub struct OrderRef<'a> {
    /// The order.
    pub order_id: OrderId,
    /// The order's owner.
    pub client_id: &'a ClientId,
    /// The customer.
    pub customer_id: &'a str,
    /// The sum of all lines in major units of the currency.
    pub total: f64,
    /// The currency's code, if one was given.
    pub currency: Option<&'a str>,
    /// The key of the request that created it.
    pub key: &'a IdempotencyKey,
    /// The correlation id of that request.
    pub correlation_id: &'a CorrelationId,
    /// The expected version: with any other, the order does not change.
    pub version: i32,
}

/// Why an order changes.
#[derive(Debug, Clone, Copy)]
pub struct Cause<'a> {
    /// The event that caused the change. The new event's id is derived from it, so that a retry derives the same id.
    pub event_id: EventId,
    /// When that event happened.
    pub occurred_at: Timestamp,
    /// The `causation-id` header: the event's id, or the correlation id of an operator's request.
    pub causation_id: &'a str,
    /// The trace that the new event continues.
    pub trace: &'a TraceContext,
}

/// Builds changes and their events. Holds what all have in common.
#[derive(Debug)]
pub struct StatusEvents {
    role: Role,
    key: EventKey,
    prefix: String,
    constant: HeaderWriter,
}

impl StatusEvents {
    /// Prepares the constant headers of a role.
    pub fn new(config: &Config, role: Role) -> Self {
        Self { role, key: config.event_key, prefix: config.topic_prefix.clone(), constant: headers::constant(role) }
    }

    /// Builds an order's change to `to`, a final status, with its event.
    pub fn change(&self, order: &OrderRef<'_>, to: Status, cause: &Cause<'_>, now: Timestamp) -> Transition {
        let event_type = to_event_type(to);
        let event_id = EventId::derived(cause.event_id, cause.occurred_at, event_type);
        let event = self.event(order, to, event_id, cause.causation_id, cause.trace, now);
        let OrderRef { order_id, version: expected_version, .. } = *order;
        Transition { order_id, expected_version, to, at: now, cause: cause.event_id, event }
    }

    /// Builds the event of a change with a given id.
    pub fn event(
        &self,
        order: &OrderRef<'_>,
        to: Status,
        event_id: EventId,
        causation_id: &str,
        trace: &TraceContext,
        at: Timestamp,
    ) -> NewEvent {
        let status = wire(to);
        let topic = status.topic().expect("the status is final");
        let version = order.version.saturating_add(1);
        let (order_id, id_text) = (order.order_id.to_string(), event_id.to_string());
        let head = Head {
            event_id: &id_text,
            occurred_at: at.into(),
            correlation_id: order.correlation_id.as_str(),
            idempotency_key: order.key.as_str(),
        };
        let mut headers = self.constant.clone();
        headers.put(names::CE_TYPE, to_event_type(to).as_bytes());
        headers.put(names::CE_SEQUENCE, version.to_string().as_bytes());
        let event_headers = EventHeaders {
            event_id: &id_text,
            order_id: &order_id,
            at,
            client: &order.client_id.0,
            correlation_id: order.correlation_id.as_str(),
            causation_id,
            trace: Some(trace),
        };
        let headers = event_headers.finish(headers);
        let record_key = Bytes::copy_from_slice(self.key.pick(order.customer_id, &order_id).as_bytes());
        let payload = encode_settled(&head, &data(order, order_id, status)).expect("the status is final");
        NewEvent {
            shard: shard_of(self.role, &record_key),
            event_id,
            topic: topics::prefixed(&self.prefix, topic),
            record_key,
            order_id: Some(order.order_id),
            order_version: Some(version),
            payload: Some(payload.into()),
            headers,
        }
    }
}

fn to_event_type(to: Status) -> &'static str {
    wire(to).event_type().expect("the status is final")
}

const fn wire(status: Status) -> order_settled::Status {
    match status {
        Status::Created => order_settled::Status::Unspecified,
        Status::Processed => order_settled::Status::Processed,
        Status::Failed => order_settled::Status::Failed,
        Status::Cancelled => order_settled::Status::Cancelled,
    }
}

fn data(order: &OrderRef<'_>, order_id: String, status: order_settled::Status) -> OrderSettled {
    OrderSettled {
        order_id,
        customer_id: order.customer_id.to_owned(),
        status: status.into(),
        total: Some(order.total),
        currency: order.currency.map(str::to_owned),
    }
}
