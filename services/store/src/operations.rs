//! Dead letters as operators see them, operations over them, and the audit.
//!
//! The API freezes an operation's set in one transaction. A worker runs it step by step; each step is one transaction behind the
//! operation's lease. An operation's progress is read from its rows alone.

mod announce;
mod audit;
mod begin;
mod dead_letters;
mod forget;
mod gap;
mod progress;
mod run;
mod waiting;
mod words;

use std::sync::Arc;

use bytes::Bytes;
use minishop_core::clock::Timestamp;
use minishop_core::ids::{ClientId, CorrelationId, EventId, OperationId, OrderId};
use minishop_core::operation::{ItemState, Kind, Skip, State, Tally};

use super::Origin;
use super::database::Database;
pub use announce::{Announce, AnnouncedAgain, Left, LostAnnouncements};
pub use gap::Gap;
pub use progress::Action;
pub use waiting::{Missing, OutboxEvent, OutboxShard, Unpublished};

/// The family over one database.
#[derive(Debug, Clone)]
pub struct Operations(pub(super) Arc<dyn Database>);

/// A filter for dead letters; `None` matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetterFilter {
    /// From `core::parking::ErrorClass`.
    pub error_class: Option<String>,
    /// From `core::parking::DeadCode`.
    pub error_code: Option<String>,
    pub error_fingerprint: Option<Bytes>,
    pub topic: Option<String>,
    pub record_key: Option<Bytes>,
    pub order_id: Option<OrderId>,
}

/// A parked event, as operators list it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    pub id: i64,
    pub event_id: EventId,
    pub order_id: Option<OrderId>,
    /// The event's type as written.
    pub event_type: Option<String>,
    /// Source topic, partition and offset.
    pub position: (String, i32, i64),
    pub record_key: Bytes,
    /// Whether later events of the key wait for it.
    pub blocks: bool,
    /// From `core::parking::State`.
    pub state: String,
    /// From `core::parking::ErrorClass`; empty if it has not failed.
    pub error_class: String,
    /// From `core::parking::DeadCode`; empty if it has none.
    pub error_code: String,
    /// The last error in one sentence; empty if it has not failed.
    pub error_message: String,
    pub error_fingerprint: Option<Bytes>,
    /// Attempts since it was parked or redriven.
    pub attempts: i32,
    /// How often operators have redriven it.
    pub redrives: i32,
    /// When it failed first, else when it was parked.
    pub first_failed_at: Timestamp,
    /// When it failed last, else when it was parked.
    pub last_failed_at: Timestamp,
}

/// A parked event with everything that is stored of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WholeLetter {
    pub letter: Letter,
    pub raw_key: Option<Bytes>,
    pub raw_value: Option<Bytes>,
    /// The record's headers, as `bus::Headers` encodes them.
    pub raw_headers: Bytes,
    pub parked_at: Timestamp,
    /// When it is retried.
    pub next_attempt_at: Option<Timestamp>,
    pub waiting: i64,
    /// The status of its order, if the store has it.
    pub order_status: Option<String>,
}

/// Dead letters with the same failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterGroup {
    /// The group's digest; `None` for dead letters without one.
    pub error_fingerprint: Option<Bytes>,
    /// From `core::parking::ErrorClass`.
    pub error_class: String,
    /// From `core::parking::DeadCode`.
    pub error_code: String,
    /// The message of its newest dead letter.
    pub error_message: String,
    pub count: i64,
    /// The earliest first failure.
    pub first_failed_at: Timestamp,
    /// The latest failure.
    pub last_failed_at: Timestamp,
    /// The row id of the newest dead letter.
    pub example: i64,
}

/// A record key with parked events, by its head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedKey {
    /// The head's row id.
    pub head: i64,
    pub record_key: Bytes,
    pub state: String,
    /// The head's error code; empty if it has none.
    pub error_code: String,
    pub attempts: i32,
    /// When the head was parked.
    pub since: Timestamp,
    pub next_attempt_at: Option<Timestamp>,
    /// How many events wait behind it.
    pub waiting: i64,
    /// The type that a worker must know to handle it.
    pub needs_type: Option<String>,
}

/// The dead letters that an operation covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    Ids(Vec<i64>),
    /// All dead letters that match a filter now.
    Filter(DeadLetterFilter),
}

/// Who asks for what, as the audit stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedBy {
    pub client_id: ClientId,
    /// The operator's name as the client gives it; may be empty.
    pub operator: String,
    /// Why; may be empty.
    pub reason: String,
    pub correlation_id: CorrelationId,
}

/// An operation to begin.
#[derive(Debug, Clone, PartialEq)]
pub struct NewOperation {
    pub id: OperationId,
    pub kind: Kind,
    pub selection: Selection,
    /// The filter as its message's JSON, for display.
    pub filter: Option<String>,
    /// The most events per second.
    pub rate: i32,
    /// The share of failures above which it stops.
    pub failure_ratio: f64,
    pub requested_by: RequestedBy,
    pub at: Timestamp,
}

/// The frozen set of a selection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FrozenSet {
    /// How many dead letters it has.
    pub matched: i64,
    /// Row ids that are left out, and why: at most [`SHOWN_ITEMS`].
    pub skipped: Vec<(i64, Skip)>,
}

/// An operation's current state.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    pub id: OperationId,
    pub kind: Kind,
    pub state: State,
    /// The filter as its message's JSON.
    pub filter: Option<String>,
    /// The most events per second.
    pub rate: i32,
    pub failure_ratio: f64,
    pub requested_by: RequestedBy,
    pub created_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    /// Why it stopped; empty unless it did.
    pub stopped_because: String,
    /// Its dead letters, counted by state.
    pub tally: Tally,
}

/// One dead letter of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub parked_id: i64,
    pub event_id: Option<EventId>,
    pub order_id: Option<OrderId>,
    /// What became of it.
    pub state: ItemState,
    /// Why it was skipped, or the code of its failure.
    pub reason: String,
}

/// Which operations to list, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OperationQuery {
    pub kind: Option<Kind>,
    pub state: Option<State>,
    /// Only operations with a smaller id than the last one of the page before.
    pub before: Option<OperationId>,
    /// The most operations to return.
    pub limit: i64,
}

/// An action of an operator, or an outcome of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// The entry's id; 0 before it is written.
    pub id: i64,
    pub at: Timestamp,
    /// Such as `redrive`, `cancel` or `skip`.
    pub action: String,
    pub requested_by: RequestedBy,
    /// Such as `accepted`, `stopped` or `done`.
    pub outcome: String,
    /// The operation, if the action is about one.
    pub operation_id: Option<OperationId>,
    /// Details as a JSON object.
    pub detail: Option<String>,
}

/// An operation that a worker has leased.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    pub operation: Operation,
    /// The lease's epoch: a later lease of another worker has a greater one.
    pub epoch: i64,
}

/// A dead letter to discard, and its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscardCandidate {
    pub parked_id: i64,
    pub event_id: EventId,
    /// Whether it is the event that announced its order. A refused copy that only names an order is not.
    pub announced: bool,
    /// The order, if the store has it.
    pub order: Option<Origin>,
}

/// The most items that an answer shows.
pub const SHOWN_ITEMS: i64 = 1000;
