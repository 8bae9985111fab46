//! Changes of an order to a final status, each with its event. The API cancels; the worker processes and gives up. All events are
//! built here, so that they look alike.

use bytes::Bytes;
use minishop_bus::HeaderWriter;
use minishop_contracts::events::v1::{OrderSettled, order_settled};
use minishop_contracts::events::{EnvelopeFields, encode_settled};
use minishop_contracts::headers::kafka as names;
use minishop_contracts::key::EventKey;
use minishop_contracts::topics;
use minishop_core::clock::Timestamp;
use minishop_core::ids::EventId;
use minishop_core::order::Status;
use minishop_core::order_head::OrderHead;
use minishop_store::{Brief, NewEvent, Role, Transition, shard_of};
use uuid::Uuid;

use super::headers::{self, EventHeaders};
use crate::config::Config;
use crate::telemetry::propagation::TraceContext;

/// An order's change to a final status.
#[derive(Debug, Clone, Copy)]
pub struct StatusChange<'a> {
    pub order: &'a OrderHead,
    /// The expected version: with any other, the order does not change.
    pub version: i32,
    pub to: Status,
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
        Self::of(role, config.event_key, config.topic_prefix.clone())
    }

    pub(super) fn of(role: Role, key: EventKey, prefix: String) -> Self {
        Self { role, key, prefix, constant: headers::constant(role) }
    }

    /// Builds the transition of a change, with its event.
    pub fn change(&self, change: StatusChange<'_>, cause: &Cause<'_>, now: Timestamp) -> Transition {
        let event_type = to_event_type(change.to);
        let event_id = EventId::derived(cause.event_id, cause.occurred_at, event_type);
        let mut event = self.event(change, event_id, cause.causation_id, cause.trace, now);
        // The timeline has the causing event, but no operator's request.
        if *cause.event_id.0.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == *cause.causation_id {
            event.brief = Some(Brief { trace: Some(cause.trace.to_text()) });
        }
        let StatusChange { order, version: expected_version, to } = change;
        Transition { order_id: order.order_id, expected_version, to, at: now, cause: cause.event_id, event }
    }

    /// Builds the event of a change with a given id.
    pub fn event(
        &self,
        change: StatusChange<'_>,
        event_id: EventId,
        causation_id: &str,
        trace: &TraceContext,
        at: Timestamp,
    ) -> NewEvent {
        let StatusChange { order, version, to } = change;
        let status = wire(to);
        let topic = status.topic().expect("the status is final");
        let version = version.saturating_add(1);
        let (order_id, id_text) = (order.order_id.to_string(), event_id.to_string());
        let head = EnvelopeFields {
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
        let record_key = Bytes::copy_from_slice(self.key.pick(&order.customer_id, &order_id).as_bytes());
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
            brief: None,
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

fn data(order: &OrderHead, order_id: String, status: order_settled::Status) -> OrderSettled {
    OrderSettled {
        order_id,
        customer_id: order.customer_id.clone(),
        status: status.into(),
        total: Some(order.total()),
        currency: order.currency.clone(),
    }
}
