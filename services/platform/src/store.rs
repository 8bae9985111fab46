//! The store: one narrow trait per table family, two adapters (PostgreSQL and SQLite), one conformance suite over both.
//!
//! "Not found" is `None`; every error says what the caller should do next.

mod columns;
pub mod error;
pub mod postgres;
mod rows;
pub mod sqlite;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use minishop_core::clock::Timestamp;
use minishop_core::idempotency::{Fingerprint, IdempotencyKey};
use minishop_core::ids::{ClientId, CorrelationId, EventId, OrderId};
use minishop_core::order::Status;

pub use rows::{AdoptedOrder, Gate, InboxEntry, Journal, KnownOrder, Note, ParkedEvent, Position, Transition};

/// How many outbox shards each role has. Fixed for ever: a key's shard must never change while rows wait.
pub const SHARDS_PER_ROLE: i16 = 16;

/// All table families of one database.
#[derive(Debug, Clone)]
pub struct Store {
    /// Orders and their acceptance.
    pub orders: Arc<dyn Orders>,
    /// Events that wait for the relay.
    pub outbox: Arc<dyn Outbox>,
    /// The consumer's transaction.
    pub inbox: Arc<dyn Inbox>,
    /// Events that were set aside.
    pub lot: Arc<dyn Lot>,
}

/// What went wrong and what the caller should do: the variant is the advice.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing was written; the same call may succeed later (database away, full, read-only, deadlock, time-out).
    #[error("{operation}: the store is unavailable")]
    Retry {
        /// Which operation, for the log.
        operation: &'static str,
        /// What the database said; never shown to a client.
        #[source]
        source: anyhow::Error,
    },
    /// The connection was lost while a commit ran: it may have happened. Run the same call with the same ids again.
    #[error("{operation}: the outcome of the commit is unknown")]
    Unknown {
        /// Which operation, for the log.
        operation: &'static str,
        /// What the database said; never shown to a client.
        #[source]
        source: anyhow::Error,
    },
    /// This input can never be written, or the database is not what it should be. Trying again will not help.
    #[error("{operation}: the store refused")]
    Fail {
        /// Which operation, for the log.
        operation: &'static str,
        /// What the database said; never shown to a client.
        #[source]
        source: anyhow::Error,
    },
}

/// The answer of every store call.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// An event that waits to be published, before the database has given it its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// The outbox shard, from role and record key; see `relay::shard_of`.
    pub shard: i16,
    /// The event's id.
    pub event_id: EventId,
    /// The topic, prefix included.
    pub topic: String,
    /// The Kafka record key.
    pub record_key: Bytes,
    /// The order that the event is about; `None` for dead letters without one.
    pub order_id: Option<OrderId>,
    /// The order's version after the change.
    pub order_version: Option<i32>,
    /// The record value: at most 262 144 bytes, except on the dead-letter topic. `None` is Kafka's null value.
    pub payload: Option<Bytes>,
    /// The record headers, as `bus::Headers` encodes them.
    pub headers: Bytes,
}

/// An event that waits to be published, in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    /// The place within the shard. Rows of a key are sent in this order.
    pub id: i64,
    /// What is sent.
    pub event: NewEvent,
}

/// A validated order on its way into the store, with the event that announces it.
#[derive(Debug, Clone)]
pub struct NewOrder {
    /// The order's id.
    pub order_id: OrderId,
    /// The caller; with `key` the scope of idempotency.
    pub client_id: ClientId,
    /// The caller's name for the command.
    pub key: IdempotencyKey,
    /// The command's digest.
    pub fingerprint: Fingerprint,
    /// The customer.
    pub customer_id: String,
    /// The currency's code; `None` when the caller named none.
    pub currency: Option<String>,
    /// The total in minor units.
    pub total_minor: i64,
    /// The lines: a JSON array of `core::order::Item`.
    pub items: String,
    /// The correlation id.
    pub correlation_id: CorrelationId,
    /// The W3C trace context of the request, if it was traced.
    pub traceparent: Option<String>,
    /// The time of acceptance; the event says the same.
    pub created_at: Timestamp,
    /// `orders.created`.
    pub event: NewEvent,
}

/// The columns of an order that never change and that a replay is answered from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// The caller.
    pub client_id: ClientId,
    /// The caller's name for the command.
    pub key: IdempotencyKey,
    /// The order that the key made.
    pub order_id: OrderId,
    /// The digest of the command that made it.
    pub fingerprint: Fingerprint,
    /// The total in minor units.
    pub total_minor: i64,
    /// The currency's code.
    pub currency: Option<String>,
}

/// An order as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderRow {
    /// The order's id.
    pub order_id: OrderId,
    /// The caller that created it.
    pub client_id: ClientId,
    /// The customer.
    pub customer_id: String,
    /// Where it stands.
    pub status: Status,
    /// 1 when created, one more with each change of status.
    pub version: i32,
    /// The currency's code.
    pub currency: Option<String>,
    /// The total in minor units.
    pub total_minor: i64,
    /// The lines: a JSON array of `core::order::Item`.
    pub items: String,
    /// The correlation id.
    pub correlation_id: CorrelationId,
    /// The time of acceptance.
    pub created_at: Timestamp,
}

/// Which orders to list: newest first, by keyset on the order id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListQuery {
    /// Whose orders.
    pub client_id: ClientId,
    /// Only this customer's.
    pub customer_id: Option<String>,
    /// Only those in this status.
    pub status: Option<Status>,
    /// Only orders with a smaller id than the last one of the page before.
    pub before: Option<OrderId>,
    /// At most so many, 1 to 501.
    pub limit: i64,
}

/// One connection that accepts orders. Owned by one task that nobody cancels.
#[async_trait]
pub trait Intake: Send {
    /// Inserts up to 256 orders and their events in one statement and commits; returns the outbox id of each order made.
    ///
    /// `batch` is sorted by (client, key) and holds no key twice. An order that is not in the answer was not made: its key
    /// existed, here or in a concurrent commit; read it with [`Orders::by_keys`]. After [`StoreError::Unknown`] run the same
    /// batch with the same ids again: an order that the first run made is then found by key *with its own order id*.
    async fn accept(&mut self, batch: &[NewOrder]) -> Result<HashMap<OrderId, i64>>;
}

/// Orders: acceptance, and reads that see every acknowledged write.
#[async_trait]
pub trait Orders: Send + Sync + std::fmt::Debug {
    /// Opens a connection for one intake writer.
    async fn intake(&self) -> Result<Box<dyn Intake>>;
    /// Reads the records of keys; absent keys are left out.
    async fn by_keys(&self, keys: &[(ClientId, IdempotencyKey)]) -> Result<Vec<KeyRecord>>;
    /// Reads one order of a client; another client's is `None`.
    async fn get(&self, client: &ClientId, id: OrderId) -> Result<Option<OrderRow>>;
    /// Reads a page.
    async fn list(&self, query: &ListQuery) -> Result<Vec<OrderRow>>;
    /// Asks the database for a sign of life; also says whether it takes writes.
    async fn ping(&self) -> Result<()>;
}

/// Which process role wrote an outbox row; each role has [`SHARDS_PER_ROLE`] shards of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Shards 0 to 15.
    Api,
    /// Shards 16 to 31.
    Worker,
}

/// What a process leads after a renewal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leadership {
    /// The shards that this process may send from, until `LEASE` after the renewal *began*.
    pub shards: Vec<i16>,
    /// Roles of which no other process is alive. Only their rows may be sent from memory: with a second writer, a row of
    /// the same key may wait unseen in the table.
    pub alone_in: Vec<Role>,
}

/// How long a lease lasts after its renewal, by the database's clock.
pub const LEASE: Duration = Duration::from_secs(10);

/// How much waits to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutboxStats {
    /// Rows that wait.
    pub depth: i64,
    /// Age of the oldest, by the database's clock.
    pub oldest: Duration,
}

/// The outbox: a pending set. Rows are deleted after the broker has acknowledged them; there is no cursor.
#[async_trait]
pub trait Outbox: Send + Sync + std::fmt::Debug {
    /// Renews, takes and gives back leases for a process that is alive in `roles`.
    ///
    /// A process holds at most ⌈16 ÷ live owners⌉ shards of a role it plays, gives the surplus back, and takes shards whose lease
    /// has run out, also of a role that no process plays. With SQLite the lock on the data directory is the lease: all
    /// shards, alone.
    async fn lead(&self, owner: &str, roles: &[Role]) -> Result<Leadership>;
    /// Gives all leases back and signs off.
    async fn release(&self, owner: &str) -> Result<()>;
    /// Reads the first rows of each shard, `ORDER BY id`, at most `limit` a shard.
    async fn pending(&self, shards: &[i16], limit: i64) -> Result<Vec<OutboxRow>>;
    /// Reads rows older than `age` by the database's clock, `ORDER BY shard, id`.
    async fn aged(&self, shards: &[i16], age: Duration, limit: i64) -> Result<Vec<OutboxRow>>;
    /// Deletes delivered rows. A lost delete only causes a copy, so this commit need not wait for the disk.
    async fn delete(&self, rows: &[(i16, i64)]) -> Result<()>;
    /// Counts what waits.
    async fn stats(&self) -> Result<OutboxStats>;
}

/// One transaction of the consumer. Dropping it rolls back.
///
/// Steps run in this order: gate, parked keys, orders, adopt, settle, record, commit. The parked-key check that counts comes
/// after the gate, in a later statement: before it, a concurrent park is invisible and the key's order is lost.
#[async_trait]
pub trait Settlement: Send {
    /// Writes the inbox rows; what was not there before is fresh.
    async fn gate(&mut self, entries: &[InboxEntry]) -> Result<Gate>;
    /// Tells which keys have a blocking event in the lot.
    async fn parked_keys(&mut self, keys: &[Bytes]) -> Result<HashSet<Bytes>>;
    /// Reads orders by id, and by (client, key).
    async fn orders(&mut self, ids: &[OrderId], keys: &[(ClientId, IdempotencyKey)]) -> Result<Vec<KnownOrder>>;
    /// Inserts orders that came by events; returns those made (the others' id or key exists).
    async fn adopt(&mut self, orders: &[AdoptedOrder]) -> Result<HashSet<OrderId>>;
    /// Changes status, writes the timeline's status row and the outbox row of each order that passes the fence, in this order.
    ///
    /// Returns the outbox id of each order that passed.
    async fn settle(&mut self, transitions: &[Transition]) -> Result<HashMap<OrderId, i64>>;
    /// Writes the rest; returns the outbox ids of `journal.events` in their order.
    async fn record(&mut self, journal: &Journal) -> Result<Vec<i64>>;
    /// Commits. Only then may the offsets be committed to the broker.
    async fn commit(self: Box<Self>) -> Result<()>;
}

/// The inbox: which events this consumer has settled, and how far it has read.
#[async_trait]
pub trait Inbox: Send + Sync + std::fmt::Debug {
    /// Begins a consumer's transaction on the worker's own connection. One at a time; nobody cancels it.
    async fn begin(&self, consumer: &str) -> Result<Box<dyn Settlement>>;
    /// Reads how far a consumer has settled, all partitions.
    async fn positions(&self, consumer: &str) -> Result<Vec<Position>>;
}

/// A dead letter as operators list it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
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
    /// The kind of failure.
    pub error_class: String,
    /// The code.
    pub error_code: String,
    /// One sentence.
    pub error_message: String,
    /// How often it was tried.
    pub attempts: i32,
    /// When it failed first.
    pub first_failed_at: Timestamp,
    /// When it failed last.
    pub last_failed_at: Timestamp,
}

/// The parking lot, as operators read it.
#[async_trait]
pub trait Lot: Send + Sync + std::fmt::Debug {
    /// Reads dead letters, newest first, with a smaller id than `before`.
    async fn dead_letters(&self, before: Option<i64>, limit: i64) -> Result<Vec<DeadLetter>>;
    /// Counts the lot's rows by state.
    async fn counts(&self) -> Result<HashMap<minishop_core::parking::State, i64>>;
}
