//! The rows of one consumer transaction: what passes the gate, what changes, what is set aside and noted.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use minishop_core::clock::Timestamp;
use minishop_core::idempotency::{Fingerprint, IdempotencyKey};
use minishop_core::ids::{ClientId, CorrelationId, EventId, OrderId};
use minishop_core::order::Status;

use super::NewEvent;

/// An event at the gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxEntry {
    /// The event's id.
    pub event_id: EventId,
    /// Digest of the event's value, to tell a copy from another event under the same id.
    pub data_sha: [u8; 32],
    /// The order it is about, if it could be read.
    pub order_id: Option<OrderId>,
}

/// What the gate found.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    /// Events that are new to this consumer: theirs is the effect.
    pub fresh: HashSet<EventId>,
    /// The digests under which the others were settled.
    pub settled: HashMap<EventId, [u8; 32]>,
}

/// An order as the consumer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownOrder {
    /// The order's id.
    pub order_id: OrderId,
    /// The caller that created it.
    pub client_id: ClientId,
    /// The caller's name for the command.
    pub key: IdempotencyKey,
    /// The digest of its content.
    pub fingerprint: Fingerprint,
    /// Where it stands.
    pub status: Status,
    /// Its version.
    pub version: i32,
    /// The event that announced it.
    pub created_event_id: EventId,
}

/// An order that came by an event and not by our own API.
#[derive(Debug, Clone)]
pub struct AdoptedOrder {
    /// The order's id, from the event.
    pub order_id: OrderId,
    /// The client, from the event's headers.
    pub client_id: ClientId,
    /// The key, from the envelope.
    pub key: IdempotencyKey,
    /// The digest of its content.
    pub fingerprint: Fingerprint,
    /// The customer.
    pub customer_id: String,
    /// The currency's code.
    pub currency: Option<String>,
    /// The total in minor units.
    pub total_minor: i64,
    /// The lines: a JSON array of `core::order::Item`.
    pub items: String,
    /// The correlation id.
    pub correlation_id: CorrelationId,
    /// The W3C trace context of the event.
    pub traceparent: Option<String>,
    /// The event that announced it.
    pub created_event_id: EventId,
    /// The event's time.
    pub created_at: Timestamp,
}

/// A change of an order's status, behind a fence.
#[derive(Debug, Clone)]
pub struct Transition {
    /// The order, which must stand in `created`.
    pub order_id: OrderId,
    /// The version that it must have.
    pub expected_version: i32,
    /// Where it goes.
    pub to: Status,
    /// The time of the change.
    pub at: Timestamp,
    /// The event that caused it, for the timeline.
    pub cause: EventId,
    /// What is published when the fence lets it pass.
    pub event: NewEvent,
}

/// An event that is set aside.
#[derive(Debug, Clone)]
pub struct ParkedEvent {
    /// The record key (or the customer for a record without one); events behind a blocking one of the key wait.
    pub record_key: Bytes,
    /// Whether later events of the key must wait for it.
    pub blocks: bool,
    /// Where it stands.
    pub state: minishop_core::parking::State,
    /// The event's id, derived if it names none.
    pub event_id: EventId,
    /// The order it is about.
    pub order_id: Option<OrderId>,
    /// The client.
    pub client_id: Option<ClientId>,
    /// The event's type as written.
    pub event_type: Option<String>,
    /// The type that a worker must know to handle it.
    pub needs_type: Option<String>,
    /// Where it was read.
    pub topic: String,
    /// Where it was read.
    pub partition: i32,
    /// Where it was read.
    pub offset: i64,
    /// The record's key as it was.
    pub raw_key: Option<Bytes>,
    /// The record's value as it was.
    pub raw_value: Option<Bytes>,
    /// The record's headers as they were, as `bus::Headers` encodes them.
    pub raw_headers: Bytes,
    /// The kind of failure, from `core::parking::ErrorClass`.
    pub error_class: Option<&'static str>,
    /// The code, from `core::parking::DeadCode`.
    pub error_code: Option<&'static str>,
    /// One sentence.
    pub error_message: Option<String>,
    /// Digest that groups equal failures.
    pub error_fingerprint: Option<[u8; 32]>,
    /// When it failed.
    pub failed_at: Option<Timestamp>,
}

/// A fact of an order's life that is no change of status (those are written by the fence).
///
/// | kind | what happened | detail |
/// |---|---|---|
/// | `adopted` | the order came by its event and not by our API | |
/// | `ignored` | the event found its order changed already: a recorded no-op | |
/// | `parked` | the event waits in the lot | `because`: `order` (behind an earlier event of its key), `handler` (due at once) |
/// | `held` | the event waits for a newer worker | `needsType` |
/// | `attempt` | handling failed and is tried again | `attempt`, `class`, `message`; `nextAttemptAt` unless `class` is `crash` |
/// | `released` | handling succeeded and the event left the lot | `attempts`, the last one included |
/// | `dead` | the event was given up and is a dead letter | `attempts`, `class`, `code`, `message` |
/// | `fulfilled_after_cancel` | the handler succeeded, but the order had been cancelled meanwhile | `attempt` |
///
/// `class` and `code` are `core::parking`'s; times are RFC 3339 in UTC.
#[derive(Debug, Clone)]
pub struct Note {
    /// The order.
    pub order_id: OrderId,
    /// What happened.
    pub kind: &'static str,
    /// When.
    pub at: Timestamp,
    /// The event that caused it.
    pub cause: EventId,
    /// More, as a JSON object.
    pub detail: Option<String>,
}

/// How far a partition has been settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first offset that is not settled.
    pub next_offset: i64,
}

/// Everything that one consumer transaction writes beside the fence.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    /// Events set aside.
    pub parked: Vec<ParkedEvent>,
    /// Events to publish: those of the orders that passed the fence, and dead letters.
    pub events: Vec<NewEvent>,
    /// Facts for the timeline.
    pub notes: Vec<Note>,
    /// Inbox rows of duplicates, which name the order they double.
    pub duplicates: Vec<(EventId, OrderId)>,
    /// How far the batch reaches.
    pub positions: Vec<Position>,
    /// Where the consumer last saw the store stand in partitions of the batch; those of which it knows nothing are left out. A
    /// store that stands lower now is another one: nothing is written.
    pub seen: Vec<Position>,
}

impl Journal {
    /// Tells where the consumer saw the store stand in the partition of a position; 0 when it knows nothing.
    pub(super) fn seen_at(&self, position: &Position) -> i64 {
        let seen = self.seen.iter().find(|s| s.partition == position.partition && s.topic == position.topic);
        seen.map_or(0, |s| s.next_offset)
    }
}
