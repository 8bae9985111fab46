//! The events that the worker publishes: `orders.processed`, and dead letters.

use bytes::Bytes;
use minishop_contracts::events::v1::{OrderSettled, order_settled};
use minishop_contracts::events::{Head, encode_settled};
use minishop_contracts::headers::kafka;
use minishop_contracts::key::EventKey;
use minishop_contracts::topics;
use minishop_core::clock::Timestamp;
use minishop_core::ids::{EventId, Ids};
use minishop_core::order::Status;
use minishop_platform::bus::{Headers, Record};
use minishop_platform::relay::shard_of;
use minishop_platform::store::{NewEvent, Role, Transition};
use minishop_platform::telemetry::propagation::TraceContext;

use crate::decode::{Created, Refused};

const PROCESSED: order_settled::Status = order_settled::Status::Processed;

/// What every outgoing event needs to know.
#[derive(Debug)]
pub struct Settings<'a> {
    /// Prefix of the topics.
    pub prefix: &'a str,
    /// Which field is the record key.
    pub event_key: EventKey,
    /// Randomness, for span ids.
    pub ids: &'a dyn Ids,
}

/// Makes the change of an order to `processed`, with the event that announces it.
///
/// The event's id is derived from its cause, so a second try, or a store restored from a backup, makes the same id.
pub fn processed(cause: EventId, event: &Created, expected_version: i32, now: Timestamp, settings: &Settings<'_>) -> Transition {
    let event_type = PROCESSED.event_type().expect("processed is a final status");
    let event_id = EventId::derived(cause, event.occurred_at, event_type);
    let version = expected_version.saturating_add(1);
    let data = OrderSettled {
        order_id: event.order_id.to_string(),
        customer_id: event.order.customer_id().to_owned(),
        status: PROCESSED.into(),
        total: Some(event.order.total()),
        currency: event.order.currency().map(|c| c.code().to_owned()),
    };
    let id_text = event_id.to_string();
    let head = Head {
        event_id: &id_text,
        occurred_at: now.into(),
        correlation_id: event.correlation_id.as_str(),
        idempotency_key: event.key.as_str(),
    };
    let payload = encode_settled(&head, &data).expect("processed is a final status");
    let key = match settings.event_key {
        EventKey::Customer => data.customer_id,
        EventKey::Order => data.order_id.clone(),
    };
    let headers = Headers::default()
        .with(kafka::CORRELATION_ID, event.correlation_id.as_str())
        .with(kafka::CAUSATION_ID, cause.to_string())
        .with(kafka::CE_ID, &id_text)
        .with(kafka::CE_SOURCE, "minishop/worker")
        .with(kafka::CE_TYPE, event_type)
        .with(kafka::CE_SPECVERSION, kafka::CE_SPECVERSION_1_0)
        .with(kafka::CE_TIME, now.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
        .with(kafka::CE_SUBJECT, &data.order_id)
        .with(kafka::CE_SEQUENCE, version.to_string())
        .with(kafka::CE_CLIENT, &event.client_id.0);
    let headers = match event.traceparent.as_deref().and_then(|parent| TraceContext::parse(parent, None)) {
        Some(trace) => headers.with(kafka::TRACEPARENT, trace.child(settings.ids).traceparent()),
        None => headers,
    };
    Transition {
        order_id: event.order_id,
        expected_version,
        to: Status::Processed,
        at: now,
        cause,
        event: NewEvent {
            shard: shard_of(Role::Worker, key.as_bytes()),
            event_id,
            topic: topics::prefixed(settings.prefix, topics::PROCESSED),
            record_key: key.into(),
            order_id: Some(event.order_id),
            order_version: Some(version),
            payload: Some(payload.into()),
            headers: headers.encode(),
        },
    }
}

/// Makes the dead-letter record of a refused one: original key, bytes and headers, and where and why it failed.
pub fn dead_letter(id: EventId, record: &Record, refused: &Refused, now: Timestamp, settings: &Settings<'_>) -> NewEvent {
    let at = now.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    let headers = record
        .headers
        .clone()
        .with(kafka::DLQ_TOPIC, record.topic.as_bytes())
        .with(kafka::DLQ_PARTITION, record.partition.to_string())
        .with(kafka::DLQ_OFFSET, record.offset.to_string())
        .with(kafka::DLQ_ERROR_CLASS, minishop_core::parking::ErrorClass::Refused.as_str())
        .with(kafka::DLQ_ERROR_CODE, refused.code.as_str())
        .with(kafka::DLQ_ERROR_MESSAGE, &refused.message)
        .with(kafka::DLQ_ATTEMPTS, "1")
        .with(kafka::DLQ_FIRST_FAILED, &at)
        .with(kafka::DLQ_LAST_FAILED, &at);
    let key = record.key.clone().unwrap_or_default();
    NewEvent {
        shard: shard_of(Role::Worker, &key),
        event_id: EventId::derived(id, now, topics::CREATED_DEAD_LETTERS),
        topic: topics::prefixed(settings.prefix, topics::CREATED_DEAD_LETTERS),
        record_key: key,
        order_id: None,
        order_version: None,
        payload: record.value.clone().or_else(|| Some(Bytes::new())).filter(|value| !value.is_empty()),
        headers: headers.encode(),
    }
}
