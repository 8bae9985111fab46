//! The parking lot: parked events, and how a worker claims them.
//!
//! The *head* of a key is its blocking row with the smallest id; only heads, and rows that do not block, are handled. A row is
//! *due* when `next_attempt_at` is set and has passed, by the database's clock. A claim leases the row: it counts the attempt and
//! commits before the handler runs. Every later write names the lease and does nothing if the lease was lost.

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use minishop_core::clock::Timestamp;
use minishop_core::ids::{ClientId, EventId, OrderId};

use super::{ConsumerTx, Result};

/// Leases of one claim end at random over this time. Otherwise a *poison row*, which kills its worker, is claimed again together
/// with the other rows of its claim each time, and all of them use up their attempts.
pub(super) const LEASE_SPREAD: Duration = Duration::from_secs(15);

/// The most keys that one step of a sweep reads.
pub(super) const KEYS_AT_ONCE: i32 = 1_000;

/// The right to write a claimed row. Lost when the row is claimed again, released or drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    pub id: i64,
    /// How often the row has been leased or released, this lease included.
    pub epoch: i64,
    /// The event in the row: after a restore the database gives the same row ids to other events.
    pub event_id: EventId,
}

/// The result of one step of a sweep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeDue {
    /// How many rows became due.
    pub due: u64,
    /// The key after which the next step begins; `None` after the last key.
    pub after: Option<Bytes>,
}

/// A worker's request for due rows.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The event types that it can read; rows that need another one stay.
    pub types: &'a [String],
    /// The shortest lease. Each row gets up to `LEASE_SPREAD` more, so that they do not all come back at once.
    pub lease: Duration,
    pub limit: usize,
}

/// A claimed event, as it was parked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    pub lease: Lease,
    /// The id under which it was settled.
    pub event_id: EventId,
    /// The order it is about; `None` while that is unknown.
    pub order_id: Option<OrderId>,
    pub record_key: Bytes,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub raw_key: Option<Bytes>,
    pub raw_value: Option<Bytes>,
    /// The record's headers, as `bus::Headers` encodes them.
    pub raw_headers: Bytes,
    /// Attempts since it was parked or redriven, this one included.
    pub attempts: i32,
    /// How often an operator has redriven it.
    pub redrives: i32,
    pub parked_at: Timestamp,
    pub first_failed_at: Option<Timestamp>,
    /// Whether the previous attempt did not end: its worker died, or lost its lease.
    pub abandoned: bool,
}

/// Why a row stays in the lot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The kind, from `core::parking::ErrorClass`.
    pub class: &'static str,
    /// The code, from `core::parking::DeadCode`; `None` while it is retried.
    pub code: Option<&'static str>,
    /// One sentence, without U+0000.
    pub message: String,
    pub fingerprint: [u8; 32],
    pub at: Timestamp,
}

/// The new state of a claimed row that stays in the lot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The lease, which ends.
    pub lease: Lease,
    /// The wait until it is due again; `None` makes it dead.
    pub again_in: Option<Duration>,
    /// Whether the attempt is not counted: nothing was tried.
    pub uncounted: bool,
    /// Whether later events of its key stop waiting for it.
    pub unblocks: bool,
    /// What failed; `None` keeps the stored failure.
    pub failure: Option<Failure>,
}

/// What a claimed event turned out to be once a worker could decode it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The lease, which stays valid under `event_id`.
    pub lease: Lease,
    pub event_id: EventId,
    pub order_id: OrderId,
    pub client_id: ClientId,
    /// Its type as written.
    pub event_type: String,
}

/// A consumer transaction that also ends or keeps claimed rows. Each step returns the ids of the rows whose lease held; the
/// caller leaves out what belongs to the others.
///
/// It locks the orders that it reads by id: an order must not be cancelled while its event is given up.
#[async_trait]
pub trait LotTx: ConsumerTx {
    /// Deletes rows, and makes the next row of each key that they blocked due.
    async fn drain(&mut self, leases: &[Lease]) -> Result<HashSet<i64>>;
    /// Releases rows, to be retried or as dead letters.
    async fn release(&mut self, rows: &[Release]) -> Result<HashSet<i64>>;
    /// Writes the identity of rows.
    async fn identify(&mut self, rows: &[Identity]) -> Result<HashSet<i64>>;
}

/// The parking lot, as a worker uses it.
#[async_trait]
pub trait Lot: Send + Sync + std::fmt::Debug {
    /// Returns how long the oldest event that needs a type beyond `types` has been held.
    async fn oldest_held(&self, consumer: &str, types: &[String]) -> Result<Option<Duration>>;
    /// Leases due rows, counts their attempt and commits. The rows come in no order. Two callers never get the same row, nor two
    /// blocking rows of one key.
    async fn claim(&self, consumer: &str, claim: &Claim<'_>) -> Result<Vec<Claimed>>;
    /// Returns the time until the next row is due, zero if one is; `None` when no row has a time.
    async fn next_due(&self, consumer: &str, types: &[String]) -> Result<Option<Duration>>;
    /// Makes rows due that wait although nothing blocks them: heads that were missed when the row before them left, and events
    /// whose type is now in `types`. One call reads at most `KEYS_AT_ONCE` keys after `after`, so that claims never wait for a
    /// sweep of a large lot.
    async fn make_due(&self, consumer: &str, types: &[String], after: Option<&Bytes>) -> Result<MadeDue>;
    /// Begins a transaction on the lot's own connection. One at a time; never cancelled.
    async fn begin(&self, consumer: &str) -> Result<Box<dyn LotTx>>;
}
