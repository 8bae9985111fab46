//! The events that the worker publishes: `orders.processed`, and dead letters.

use bytes::Bytes;
use chrono::SecondsFormat;
use minishop_bus::{Headers, Record};
use minishop_contracts::headers::kafka as names;
use minishop_contracts::topics;
use minishop_core::clock::{Timestamp, from_millis};
use minishop_core::ids::EventId;
use minishop_core::order::Status;
use minishop_core::parking::{DeadCode, ErrorClass};
use minishop_platform::config::Config;
use minishop_platform::events::status_changed::{Cause, StatusChange, StatusEvents};
use minishop_platform::telemetry::propagation::TraceContext;
use minishop_store::{NewEvent, Role, Transition, shard_of};

use crate::event::decode::{CreatedEvent, Refused};

/// The most bytes of key, value and headers in a dead letter: the topic takes 2 000 000, the rest is for the frame.
const LARGEST_DEAD_LETTER: usize = 1_900_000;

/// Builds outgoing events; holds their constant parts.
#[derive(Debug)]
pub struct EventWriter {
    settled: StatusEvents,
    dead_letters: String,
}

impl EventWriter {
    /// Prepares the topic and the constant headers.
    pub fn new(config: &Config) -> Self {
        Self {
            settled: StatusEvents::new(config, Role::Worker),
            dead_letters: topics::prefixed(&config.topic_prefix, topics::CREATED_DEAD_LETTERS),
        }
    }

    /// Builds the transition of an order to `processed`, with the event that announces it.
    ///
    /// The event's id is derived from its cause: a retry, or a store restored from a backup, yields the same id.
    pub fn processed(
        &self,
        cause: EventId,
        event: &CreatedEvent,
        expected_version: i32,
        now: Timestamp,
        trace: &TraceContext,
    ) -> Transition {
        let change = StatusChange { order: &event.head, version: expected_version, to: Status::Processed };
        let causation_id = cause.to_string();
        let cause = Cause { event_id: cause, occurred_at: event.head.created_at, causation_id: &causation_id, trace };
        self.settled.change(change, &cause, now)
    }

    /// Builds the dead letter of a record: its original key, value and headers, then where and why it failed. `id` is the id
    /// under which the record was settled.
    pub fn dead_letter(&self, id: EventId, record: &Record, death: &Death<'_>) -> NewEvent {
        let key = record.key.clone().unwrap_or_default();
        let size = key.len() + size_of(&record.headers);
        // The relay would set aside what the broker refuses. The store keeps the whole record.
        let original = if size > LARGEST_DEAD_LETTER { Headers::default() } else { record.headers.clone() };
        let value = record.value.clone().filter(|value| size + value.len() <= LARGEST_DEAD_LETTER);
        let text = |at: Timestamp| at.to_rfc3339_opts(SecondsFormat::Millis, true);
        let mut headers = original
            .with(names::DLQ_TOPIC, record.topic.as_bytes())
            .with(names::DLQ_PARTITION, record.partition.to_string())
            .with(names::DLQ_OFFSET, record.offset.to_string())
            .with(names::DLQ_ERROR_CLASS, death.class.as_str())
            .with(names::DLQ_ERROR_CODE, death.code.as_str())
            .with(names::DLQ_ERROR_MESSAGE, death.message)
            .with(names::DLQ_ATTEMPTS, death.attempts.to_string())
            .with(names::DLQ_FIRST_FAILED, text(death.first_failed))
            .with(names::DLQ_LAST_FAILED, text(death.last_failed));
        headers.0.retain(|(name, _)| name != names::DLQ_KEY_NULL);
        if record.key.is_none() {
            headers = headers.with(names::DLQ_KEY_NULL, "true");
        }
        if let (None, Some(omitted)) = (&value, &record.value) {
            headers = headers.with(names::DLQ_VALUE_OMITTED, omitted.len().to_string());
        }
        // A retry yields the same id; a record that dies again after a redrive gets another.
        let which = match death.redrives {
            0 => topics::CREATED_DEAD_LETTERS.to_owned(),
            redrives => format!("{}/{redrives}", topics::CREATED_DEAD_LETTERS),
        };
        NewEvent {
            shard: shard_of(Role::Worker, &key),
            event_id: EventId::derived(id, death.known_since, &which),
            topic: self.dead_letters.clone(),
            record_key: key,
            order_id: None,
            order_version: None,
            payload: value,
            headers: headers.encode(),
            brief: None,
        }
    }
}

/// Why, when and after how many attempts a record was given up.
#[derive(Debug, Clone, Copy)]
pub struct Death<'a> {
    pub class: ErrorClass,
    pub code: DeadCode,
    pub message: &'a str,
    /// The attempts made, at least 1.
    pub attempts: i32,
    /// The earlier redrives; makes the dead letter's id differ after each.
    pub redrives: i32,
    pub first_failed: Timestamp,
    pub last_failed: Timestamp,
    /// The timestamp in the dead letter's id; equal in every try.
    pub known_since: Timestamp,
}

impl<'a> Death<'a> {
    /// Describes a record that the stream refuses.
    pub fn at_the_gate(refused: &'a Refused, record: &Record, now: Timestamp) -> Self {
        Self {
            class: ErrorClass::Refused,
            code: refused.code,
            message: &refused.message,
            attempts: 1,
            redrives: 0,
            first_failed: now,
            last_failed: now,
            known_since: from_millis(record.timestamp),
        }
    }
}

fn size_of(headers: &Headers) -> usize {
    headers.0.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Bytes::len) + 10).sum()
}
