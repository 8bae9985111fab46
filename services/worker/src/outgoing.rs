//! The events that the worker publishes: `orders.processed`, and dead letters.

use bytes::Bytes;
use chrono::SecondsFormat;
use minishop_contracts::events::v1::{OrderSettled, order_settled};
use minishop_contracts::events::{Head, PROCESSED_V1, encode_settled};
use minishop_contracts::headers::kafka as names;
use minishop_contracts::key::EventKey;
use minishop_contracts::topics;
use minishop_core::clock::{Timestamp, from_millis};
use minishop_core::ids::EventId;
use minishop_core::order::Status;
use minishop_core::parking::ErrorClass;
use minishop_platform::bus::{HeaderWriter, Headers, Record};
use minishop_platform::config::Config;
use minishop_platform::relay::shard_of;
use minishop_platform::store::{NewEvent, Role, Transition};
use minishop_platform::telemetry::propagation::TraceContext;

use crate::decode::{Created, Refused};

/// How many bytes of key, value and headers a dead letter may have: the topic takes 2 000 000, the rest is for the frame.
const LARGEST_DEAD_LETTER: usize = 1_900_000;

/// Writes outgoing events. Holds what is the same for all.
#[derive(Debug)]
pub struct EventWriter {
    processed: String,
    dead_letters: String,
    key: EventKey,
    constant: HeaderWriter,
}

impl EventWriter {
    /// Prepares topics and constant headers.
    pub fn new(config: &Config) -> Self {
        let mut constant = HeaderWriter::default();
        constant.put(names::CE_SPECVERSION, names::CE_SPECVERSION_1_0.as_bytes());
        constant.put(names::CE_SOURCE, b"/minishop/worker");
        constant.put(names::CE_TYPE, PROCESSED_V1.as_bytes());
        Self {
            processed: topics::prefixed(&config.topic_prefix, topics::PROCESSED),
            dead_letters: topics::prefixed(&config.topic_prefix, topics::CREATED_DEAD_LETTERS),
            key: config.event_key,
            constant,
        }
    }

    /// Makes the change of an order to `processed`, with the event that announces it.
    ///
    /// The event's id is derived from its cause, so a second try, or a store restored from a backup, makes the same id.
    pub fn processed(
        &self,
        cause: EventId,
        event: &Created,
        expected_version: i32,
        now: Timestamp,
        trace: &TraceContext,
    ) -> Transition {
        let event_id = EventId::derived(cause, event.occurred_at, PROCESSED_V1);
        let version = expected_version.saturating_add(1);
        let subject = event.order_id;
        let order_id = subject.to_string();
        let id_text = event_id.to_string();
        let head = Head {
            event_id: &id_text,
            occurred_at: now.into(),
            correlation_id: event.correlation_id.as_str(),
            idempotency_key: event.key.as_str(),
        };
        let mut headers = self.constant.clone();
        // The same digits as `occurredAt` in the envelope.
        headers.put(names::CE_TIME, now.to_rfc3339_opts(SecondsFormat::AutoSi, true).as_bytes());
        headers.put(names::CE_ID, id_text.as_bytes());
        headers.put(names::CE_SUBJECT, order_id.as_bytes());
        headers.put(names::CE_SEQUENCE, version.to_string().as_bytes());
        headers.put(names::CE_CLIENT, event.client_id.0.as_bytes());
        headers.put(names::CORRELATION_ID, event.correlation_id.as_str().as_bytes());
        headers.put(names::CAUSATION_ID, cause.to_string().as_bytes());
        headers.put(names::TRACEPARENT, trace.traceparent().as_bytes());
        if let Some(state) = trace.tracestate() {
            headers.put(names::TRACESTATE, state.as_bytes());
        }
        let key = Bytes::copy_from_slice(self.key.pick(event.order.customer_id(), &order_id).as_bytes());
        let payload = encode_settled(&head, &data(event, order_id)).expect("processed is a final status");
        let event = NewEvent {
            shard: shard_of(Role::Worker, &key),
            event_id,
            topic: self.processed.clone(),
            record_key: key,
            order_id: Some(subject),
            order_version: Some(version),
            payload: Some(payload.into()),
            headers: headers.finish(),
        };
        Transition { order_id: subject, expected_version, to: Status::Processed, at: now, cause, event }
    }

    /// Makes the dead letter of a record: its key, value and headers as they were, then where and why it failed.
    pub fn dead_letter(&self, id: EventId, record: &Record, refused: &Refused, now: Timestamp) -> NewEvent {
        let key = record.key.clone().unwrap_or_default();
        let size = key.len() + size_of(&record.headers);
        // One that the broker refuses would stop its shard. The store keeps the whole record.
        let original = if size > LARGEST_DEAD_LETTER { Headers::default() } else { record.headers.clone() };
        let value = record.value.clone().filter(|value| size + value.len() <= LARGEST_DEAD_LETTER);
        let at = now.to_rfc3339_opts(SecondsFormat::Millis, true);
        let mut headers = original
            .with(names::DLQ_TOPIC, record.topic.as_bytes())
            .with(names::DLQ_PARTITION, record.partition.to_string())
            .with(names::DLQ_OFFSET, record.offset.to_string())
            .with(names::DLQ_ERROR_CLASS, ErrorClass::Refused.as_str())
            .with(names::DLQ_ERROR_CODE, refused.code.as_str())
            .with(names::DLQ_ERROR_MESSAGE, &refused.message)
            .with(names::DLQ_ATTEMPTS, "1")
            .with(names::DLQ_FIRST_FAILED, &at)
            .with(names::DLQ_LAST_FAILED, &at);
        headers.0.retain(|(name, _)| name != names::DLQ_KEY_NULL);
        if record.key.is_none() {
            headers = headers.with(names::DLQ_KEY_NULL, "true");
        }
        if let (None, Some(omitted)) = (&value, &record.value) {
            headers = headers.with(names::DLQ_VALUE_OMITTED, omitted.len().to_string());
        }
        NewEvent {
            shard: shard_of(Role::Worker, &key),
            // By the record's time and not by ours: a second try makes the same id.
            event_id: EventId::derived(id, from_millis(record.timestamp), topics::CREATED_DEAD_LETTERS),
            topic: self.dead_letters.clone(),
            record_key: key,
            order_id: None,
            order_version: None,
            payload: value,
            headers: headers.encode(),
        }
    }
}

fn data(event: &Created, order_id: String) -> OrderSettled {
    OrderSettled {
        order_id,
        customer_id: event.order.customer_id().to_owned(),
        status: order_settled::Status::Processed.into(),
        total: Some(event.order.total()),
        currency: event.order.currency().map(|currency| currency.code().to_owned()),
    }
}

fn size_of(headers: &Headers) -> usize {
    headers.0.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Bytes::len) + 10).sum()
}
