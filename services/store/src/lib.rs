//! The store: families of tables, two databases (PostgreSQL and SQLite), one conformance suite over both. All SQL stands here, and
//! no decision.
//!
//! Plain reads and rare writes are written once for both databases: `Reads`, `Timeline`, `History`, `Operations` and `Endpoints` are
//! structs over `database::Statement`. Writes of many rows, reads of many keys, leases, and what needs a session or connection of its
//! own are written per database: `Orders`, `Outbox`, `Inbox`, `Lot` and `Housekeeping` are traits, implemented in `postgres` and
//! `sqlite`.
//!
//! "Not found" is `None`; every error says what the caller should do next.

mod columns;
mod database;
mod endpoints;
pub mod error;
mod history;
mod housekeeping;
mod inbox;
mod lot;
mod operations;
mod orders;
mod outbox;
pub mod postgres;
mod reads;
mod rows;
pub mod sqlite;
mod timeline;

use std::sync::Arc;

pub use endpoints::{Endpoints, Outage, PausedEndpoint, REPORT_EVERY};
pub use error::Why;
pub use history::{End, History, Past, PastOrder};
pub use housekeeping::Housekeeping;
pub use inbox::{ConsumerTx, Inbox};
pub use lot::{Claim, Claimed, Failure, Identity, Lease, Lot, LotTx, MadeDue, Release};
pub use operations::{
    Action, Announce, AnnouncedAgain, AuditRow, DeadLetterFilter, DiscardCandidate, FrozenSet, Gap, Item, Left, Letter,
    LetterGroup, LostAnnouncements, Missing, NewOperation, Operation, OperationQuery, Operations, OutboxEvent, OutboxShard,
    ParkedKey, RequestedBy, Run, SHOWN_ITEMS, Selection, Unpublished, WholeLetter,
};
pub use orders::{Cancels, Changed, Intake, KeyRecord, ListQuery, NewOrder, OrderRow, Orders};
pub use outbox::{
    Acknowledged, Brief, LEASE, Leadership, Led, NewEvent, Outbox, OutboxRow, OutboxStats, Renewal, Role, SHARDS_PER_ROLE, Span,
    shard_of,
};
pub use reads::Reads;
pub use rows::{
    AdoptedOrder, AnnouncedBatch, AnnouncedEvent, Gate, InboxEntry, Journal, KnownOrder, Note, ParkedEvent, Transition,
};
pub use timeline::{Fact, Origin, ParkedState, Timeline};

/// All table families of one database.
#[derive(Debug, Clone)]
pub struct Store {
    pub orders: Arc<dyn Orders>,
    pub reads: Reads,
    pub timeline: Timeline,
    pub outbox: Arc<dyn Outbox>,
    pub inbox: Arc<dyn Inbox>,
    pub lot: Arc<dyn Lot>,
    /// Dead letters, operations over them, and the audit.
    pub operations: Operations,
    pub endpoints: Endpoints,
    pub housekeeping: Arc<dyn Housekeeping>,
    /// Past orders, for replays.
    pub history: History,
}

/// A failed store call. The variant says what the caller should do. Its `source` is never shown to a client. `Debug` prints the chain of causes in one line.
#[derive(thiserror::Error)]
pub enum StoreError {
    /// Nothing was written; the same call may succeed later (database unreachable, full or read-only, deadlock, timeout).
    #[error("{operation}: the store is unavailable")]
    Retry {
        operation: &'static str,
        why: Why,
        #[source]
        source: anyhow::Error,
    },
    /// The connection was lost during a commit, which may have happened. Run the same call with the same ids again.
    #[error("{operation}: the outcome of the commit is unknown")]
    Unknown {
        operation: &'static str,
        #[source]
        source: anyhow::Error,
    },
    /// This input can never be written, or the database is not as expected. A retry does not help.
    #[error("{operation}: the store refused")]
    Fail {
        operation: &'static str,
        why: Why,
        #[source]
        source: anyhow::Error,
    },
}

/// The result of every store call.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;
