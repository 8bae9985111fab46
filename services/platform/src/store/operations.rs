//! Operations: dead letters as operators look for them, operations over them, and the audit.
//!
//! The API freezes an operation's set in one transaction and reads on; a worker runs it, step by step, each step one transaction
//! behind the operation's lease. Where an operation stands is read off its rows alone.

mod announce;
mod audit;
mod begin;
mod dead_letters;
mod forget;
mod gap;
mod progress;
mod run;
mod waiting;

use std::sync::Arc;

use bytes::Bytes;
use minishop_core::clock::Timestamp;
use minishop_core::idempotency::IdempotencyKey;
use minishop_core::ids::{ClientId, CorrelationId, EventId, OperationId, OrderId};
use minishop_core::operation::{ItemState, Kind, Skip, State, Tally};
use minishop_core::order::Status;

use super::database::Database;
pub use announce::{Announce, AnnouncedAgain, Left, Unannounced};
pub use gap::Gap;
pub use progress::Action;
pub use waiting::{Missing, OutboxEvent, OutboxShard, Unpublished};

/// The family over one database.
#[derive(Debug, Clone)]
pub struct Operations(Arc<dyn Database>);

impl Operations {
    pub(super) fn new(database: Arc<dyn Database>) -> Self {
        Self(database)
    }
}

/// Chooses dead letters; what is `None` chooses all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetterFilter {
    /// The kind of failure.
    pub error_class: Option<String>,
    /// The code.
    pub error_code: Option<String>,
    /// The group.
    pub error_fingerprint: Option<Bytes>,
    /// The topic, prefix included.
    pub topic: Option<String>,
    /// The record key.
    pub record_key: Option<Bytes>,
    /// The order.
    pub order_id: Option<OrderId>,
}

/// An event of the parking lot as operators list it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The row's id.
    pub id: i64,
    /// The event's id.
    pub event_id: EventId,
    /// The order it is about.
    pub order_id: Option<OrderId>,
    /// The event's type as written.
    pub event_type: Option<String>,
    /// Where it was read.
    pub position: (String, i32, i64),
    /// The record key.
    pub record_key: Bytes,
    /// Whether later events of the key wait for it.
    pub blocks: bool,
    /// Where it stands, as `core::parking` spells it.
    pub state: String,
    /// The kind of failure.
    pub error_class: String,
    /// The code.
    pub error_code: String,
    /// One sentence.
    pub error_message: String,
    /// The group.
    pub error_fingerprint: Option<Bytes>,
    /// How often it was tried.
    pub attempts: i32,
    /// How often it was redriven.
    pub redrives: i32,
    /// When it failed first.
    pub first_failed_at: Timestamp,
    /// When it failed last.
    pub last_failed_at: Timestamp,
}

/// An event of the parking lot with everything that is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WholeLetter {
    /// What lists say.
    pub letter: Letter,
    /// The record's key as it was.
    pub raw_key: Option<Bytes>,
    /// The record's value as it was.
    pub raw_value: Option<Bytes>,
    /// The record's headers, as `bus::Headers` encodes them.
    pub raw_headers: Bytes,
    /// When it was set aside.
    pub parked_at: Timestamp,
    /// When it is tried again.
    pub next_attempt_at: Option<Timestamp>,
    /// How many events of its key wait behind it.
    pub waiting: i64,
    /// Where its order stands.
    pub order_status: Option<String>,
}

/// Dead letters with one fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterGroup {
    /// What tells the group; `None` for those that were never grouped.
    pub error_fingerprint: Option<Bytes>,
    /// The kind of failure.
    pub error_class: String,
    /// The code.
    pub error_code: String,
    /// The sentence of its newest dead letter.
    pub error_message: String,
    /// How many there are.
    pub count: i64,
    /// When the first of them failed first.
    pub first_failed_at: Timestamp,
    /// When one of them failed last.
    pub last_failed_at: Timestamp,
    /// The newest of them.
    pub example: i64,
}

/// A record key whose events wait, by the event that is next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedKey {
    /// The id of the event that is next.
    pub head: i64,
    /// The record key.
    pub record_key: Bytes,
    /// Where that event stands.
    pub state: String,
    /// Its error code, empty when it has not failed.
    pub error_code: String,
    /// How often it was tried.
    pub attempts: i32,
    /// When it was set aside.
    pub since: Timestamp,
    /// When it is tried again.
    pub next_attempt_at: Option<Timestamp>,
    /// How many events wait behind it.
    pub waiting: i64,
    /// The type that a worker must know to handle it.
    pub needs_type: Option<String>,
}

/// Which dead letters an operation is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// These rows.
    Ids(Vec<i64>),
    /// All dead letters that a filter chooses now.
    Filter(DeadLetterFilter),
}

/// Who asks for what, as the audit keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedBy {
    /// The authenticated client.
    pub client_id: ClientId,
    /// Who it says it is; may be empty.
    pub operator: String,
    /// Why; may be empty.
    pub reason: String,
    /// The correlation id of the request.
    pub correlation_id: CorrelationId,
}

/// An operation that is to begin.
#[derive(Debug, Clone, PartialEq)]
pub struct NewOperation {
    /// Its id.
    pub id: OperationId,
    /// What it does.
    pub kind: Kind,
    /// What it is about.
    pub selection: Selection,
    /// The filter as its message's JSON, to be shown again.
    pub filter: Option<String>,
    /// Events in a second at most.
    pub rate: i32,
    /// The share of failures above which it stops.
    pub failure_ratio: f64,
    /// Who asks.
    pub requested_by: RequestedBy,
    /// When.
    pub at: Timestamp,
}

/// What a selection comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FrozenSet {
    /// How many dead letters are taken.
    pub matched: i64,
    /// What is left alone, and why: at most [`SHOWN_ITEMS`].
    pub skipped: Vec<(i64, Skip)>,
}

/// An operation as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// What it does.
    pub kind: Kind,
    /// Where it stands.
    pub state: State,
    /// The filter as its message's JSON.
    pub filter: Option<String>,
    /// Events in a second at most.
    pub rate: i32,
    /// The share of failures above which it stops.
    pub failure_ratio: f64,
    /// Who asked.
    pub requested_by: RequestedBy,
    /// When it was begun.
    pub created_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Why it stopped; empty unless it did.
    pub stopped_because: String,
    /// How far it is.
    pub tally: Tally,
}

/// One dead letter of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The row's id.
    pub parked_id: i64,
    /// The event.
    pub event_id: Option<EventId>,
    /// The order.
    pub order_id: Option<OrderId>,
    /// What became of it.
    pub state: ItemState,
    /// Why it was skipped, or the code of its failure.
    pub reason: String,
}

/// Which operations to list, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OperationQuery {
    /// Only this kind.
    pub kind: Option<Kind>,
    /// Only those that stand there.
    pub state: Option<State>,
    /// Only operations with a smaller id than the last one of the page before.
    pub before: Option<OperationId>,
    /// At most so many.
    pub limit: i64,
}

/// Something that an operator did, or that an operation came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// The entry's id; 0 before it is written.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// What.
    pub action: String,
    /// Who asked, and why.
    pub requested_by: RequestedBy,
    /// What it came to.
    pub outcome: String,
    /// The operation.
    pub operation_id: Option<OperationId>,
    /// More, as a JSON object.
    pub detail: Option<String>,
}

/// An operation on lease to a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// The operation.
    pub operation: Operation,
    /// Tells this lease from later ones.
    pub epoch: i64,
}

/// A dead letter that is to be discarded, and its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscardCandidate {
    /// The row's id.
    pub parked_id: i64,
    /// The event.
    pub event_id: EventId,
    /// Whether it is the event that announced its order. A refused copy that only names an order is not.
    pub announced: bool,
    /// The order, if the store has it.
    pub order: Option<CandidateOrder>,
}

/// An order whose event is to be discarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CandidateOrder {
    /// The order.
    pub order_id: OrderId,
    /// Whose it is.
    pub client_id: ClientId,
    /// The customer.
    pub customer_id: String,
    /// The key of the request that created it.
    pub key: IdempotencyKey,
    /// The correlation id of that request.
    pub correlation_id: CorrelationId,
    /// The total in minor units.
    pub total_minor: i64,
    /// The currency's code.
    pub currency: Option<String>,
    /// Where it stands.
    pub status: Status,
    /// Its version.
    pub version: i32,
    /// The trace of that request.
    pub traceparent: Option<String>,
    /// When it was accepted.
    pub created_at: Timestamp,
}

/// How many items an answer shows at most.
pub const SHOWN_ITEMS: i64 = 1000;
