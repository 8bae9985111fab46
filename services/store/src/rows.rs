//! The rows of one consumer transaction: what passes the gate, what changes, what is parked and noted.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use minishop_core::clock::Timestamp;
use minishop_core::idempotency::{Fingerprint, IdempotencyKey};
use minishop_core::ids::{ClientId, EventId, OrderId};
use minishop_core::order::Status;
use minishop_core::order_head::OrderHead;
use minishop_core::position::Position;
use minishop_core::timeline::NoteKind;

use super::NewEvent;

/// An event at the gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxEntry {
    pub event_id: EventId,
    /// Digest of the event's value: it distinguishes a copy from another event with the same id.
    pub data_sha: [u8; 32],
    /// The order it is about, if it could be read.
    pub order_id: Option<OrderId>,
}

/// The gate's answer.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    /// Events that are new to this consumer: they take effect.
    pub fresh: HashSet<EventId>,
    /// The digests under which the others were settled.
    pub settled: HashMap<EventId, [u8; 32]>,
}

/// An order as the consumer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownOrder {
    pub order_id: OrderId,
    pub client_id: ClientId,
    pub key: IdempotencyKey,
    pub fingerprint: Fingerprint,
    pub status: Status,
    pub version: i32,
    pub created_event_id: EventId,
}

/// An order that came by an event and not by our own API.
#[derive(Debug, Clone)]
pub struct AdoptedOrder {
    pub head: OrderHead,
    pub fingerprint: Fingerprint,
    /// The lines: a JSON array of `core::order::Item`.
    pub items: String,
    pub traceparent: Option<String>,
    pub created_event_id: EventId,
}

/// A change of an order's status, behind a fence.
#[derive(Debug, Clone)]
pub struct Transition {
    /// The order, whose status must be `created`.
    pub order_id: OrderId,
    pub expected_version: i32,
    pub to: Status,
    pub at: Timestamp,
    /// The event that caused it, for the timeline.
    pub cause: EventId,
    /// The event to publish if the order passes the fence.
    pub event: NewEvent,
}

/// An event to park.
#[derive(Debug, Clone)]
pub struct ParkedEvent {
    /// The record key (or the customer for a record without one). Later events of the key wait behind a blocking one.
    pub record_key: Bytes,
    /// Whether later events of the key must wait for it.
    pub blocks: bool,
    pub state: minishop_core::parking::State,
    /// The event's id, derived if it names none.
    pub event_id: EventId,
    pub order_id: Option<OrderId>,
    pub client_id: Option<ClientId>,
    /// The event's type as written.
    pub event_type: Option<String>,
    /// The type that a worker must know to handle it.
    pub needs_type: Option<String>,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub raw_key: Option<Bytes>,
    pub raw_value: Option<Bytes>,
    /// The record's headers, as `bus::Headers` encodes them.
    pub raw_headers: Bytes,
    pub error_class: Option<&'static str>,
    pub error_code: Option<&'static str>,
    pub error_message: Option<String>,
    pub error_fingerprint: Option<[u8; 32]>,
    pub failed_at: Option<Timestamp>,
}

/// A timeline fact that is not a change of status (the fence writes those).
#[derive(Debug, Clone)]
pub struct Note {
    pub order_id: OrderId,
    pub kind: NoteKind,
    pub at: Timestamp,
    /// The event that caused it.
    pub cause: EventId,
    /// Details as a JSON object, with the members that `NoteKind` names.
    pub detail: Option<String>,
}

/// Everything that one consumer transaction writes beside the fence.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    pub parked: Vec<ParkedEvent>,
    /// Events to publish: those of the orders that passed the fence, and dead letters.
    pub events: Vec<NewEvent>,
    pub notes: Vec<Note>,
    /// Duplicate events, with the order that each repeats.
    pub duplicates: Vec<(EventId, OrderId)>,
    pub positions: Vec<Position>,
    /// The stored positions that the consumer last saw in partitions of the batch; unknown ones are left out. If the store is
    /// behind one of them, it is another store: nothing is written.
    pub seen: Vec<Position>,
}

impl Journal {
    /// Returns the stored offset that the consumer last saw in a position's partition; 0 when unknown.
    pub(super) fn seen_at(&self, position: &Position) -> i64 {
        offset_of(&self.seen, position)
    }
}

/// An event whose order the worker expects to be as announced.
#[derive(Debug, Clone, Copy)]
pub struct AnnouncedEvent<'a> {
    /// The digest of the event's value, as in [`InboxEntry`].
    pub data_sha: &'a [u8; 32],
    /// The key whose events keep their order, as in [`ParkedEvent`].
    pub record_key: &'a [u8],
    /// The client that the order must have.
    pub client_id: &'a ClientId,
    /// The digest that the order's content must have.
    pub fingerprint: &'a Fingerprint,
    /// The change. Its cause must be the event that announced the order.
    pub transition: &'a Transition,
}

/// A batch of such events. All change to the same status, at the same time, and are announced on the same topic.
#[derive(Debug, Clone)]
pub struct AnnouncedBatch<'a> {
    /// The events, no two of one order or with one id.
    pub events: Vec<AnnouncedEvent<'a>>,
    /// As in [`Journal`].
    pub positions: &'a [Position],
    /// As in [`Journal`].
    pub seen: &'a [Position],
}

impl AnnouncedBatch<'_> {
    /// Returns the stored offset that the consumer last saw in a position's partition; 0 when unknown.
    pub(super) fn seen_at(&self, position: &Position) -> i64 {
        offset_of(self.seen, position)
    }
}

fn offset_of(positions: &[Position], of: &Position) -> i64 {
    let found = positions.iter().find(|p| p.partition == of.partition && p.topic == of.topic);
    found.map_or(0, |p| p.next_offset)
}
