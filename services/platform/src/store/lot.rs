//! The parking lot: events that were set aside, and how a worker takes them up again.
//!
//! A key's *head* is its blocking row with the smallest id; only heads, and rows that block nothing, are handled. A row is *due*
//! when `next_attempt_at` is set and has passed, by the database's clock. Taking it up leases it: the attempt is counted and
//! committed before anything runs, and whatever is written of it later names the lease and does nothing if that was lost.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use minishop_core::clock::Timestamp;
use minishop_core::ids::{ClientId, EventId, OrderId};

use super::{ConsumerTx, Result};

/// Over how long the leases of one claim end. A row whose handling kills its worker takes the others of its claim with it: had their
/// leases one end, all would be claimed together again, until every one of them had used up its attempts.
pub(super) const LEASE_SPREAD: Duration = Duration::from_secs(15);

/// How many keys are looked at in one step of a sweep.
pub(super) const KEYS_AT_ONCE: i32 = 1_000;

/// The right to a claimed row: gone when the row was claimed again, released or drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The row.
    pub id: i64,
    /// How often the row had been leased or released by then.
    pub epoch: i64,
    /// The event that stands in it. A database that goes back to an older copy gives the same ids to other events.
    pub event_id: EventId,
}

/// What one step of a sweep came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeDue {
    /// How many rows are due now.
    pub due: u64,
    /// The key after which the next step begins; `None` when all keys have been looked at.
    pub after: Option<Bytes>,
}

/// What a worker asks the lot for.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The types that it can read; rows that need another one stay.
    pub types: &'a [String],
    /// How long the rows are its own at least; each of them a little longer, so that they do not come back all at once.
    pub lease: Duration,
    /// At most so many rows.
    pub limit: usize,
}

/// A claimed row: an event as it was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The right to it.
    pub lease: Lease,
    /// The id under which it was settled.
    pub event_id: EventId,
    /// The order it is about; `None` while that is unknown.
    pub order_id: Option<OrderId>,
    /// The key whose events keep their order.
    pub record_key: Bytes,
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
    /// The record's headers, as `bus::Headers` encodes them.
    pub raw_headers: Bytes,
    /// How often it has been taken up since it was parked or redriven, this time included.
    pub attempts: i32,
    /// How often an operator has redriven it.
    pub redrives: i32,
    /// When it was set aside.
    pub parked_at: Timestamp,
    /// When it failed first.
    pub first_failed_at: Option<Timestamp>,
    /// Whether the attempt before this one came to no end: its worker died, or lost its lease.
    pub abandoned: bool,
}

/// Why a row stays in the lot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The kind, from `core::parking::ErrorClass`.
    pub class: &'static str,
    /// The code, from `core::parking::DeadCode`; none while it is tried again.
    pub code: Option<&'static str>,
    /// One sentence, without U+0000.
    pub message: String,
    /// Digest that groups equal failures.
    pub fingerprint: [u8; 32],
    /// When.
    pub at: Timestamp,
}

/// What becomes of a claimed row that stays in the lot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The right to it, which ends.
    pub lease: Lease,
    /// In how long it is due again; `None` gives it up: it is dead.
    pub again_in: Option<Duration>,
    /// Whether the attempt is taken back: nothing was tried.
    pub uncounted: bool,
    /// Whether later events of its key need not wait for it any more.
    pub unblocks: bool,
    /// What failed; `None` leaves what stands there.
    pub failure: Option<Failure>,
}

/// What a claimed row turned out to be once it could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The right to it, which stays.
    pub lease: Lease,
    /// The event's own id.
    pub event_id: EventId,
    /// The order it is about.
    pub order_id: OrderId,
    /// Whose it is.
    pub client_id: ClientId,
    /// Its type as written.
    pub event_type: String,
}

/// A consumer's transaction that also ends or keeps claimed rows. Each step returns the ids of the rows whose lease held;
/// the caller leaves out what belongs to the others.
///
/// Orders that it reads by id stay as they are until it ends: an event is given up for an order that cannot be cancelled meanwhile.
#[async_trait]
pub trait LotTx: ConsumerTx {
    /// Deletes rows, and makes the next row of each key due.
    async fn drain(&mut self, leases: &[Lease]) -> Result<HashSet<i64>>;
    /// Puts rows back, to be tried again or given up.
    async fn release(&mut self, rows: &[Release]) -> Result<HashSet<i64>>;
    /// Writes what rows turned out to be.
    async fn identify(&mut self, rows: &[Identity]) -> Result<HashSet<i64>>;
}

/// The parking lot, as a worker takes it up.
#[async_trait]
pub trait Lot: Send + Sync + std::fmt::Debug {
    /// Counts the lot's rows by state.
    async fn counts(&self) -> Result<HashMap<minishop_core::parking::State, i64>>;
    /// Tells for how long the oldest event that needs a type beyond `types` has been held.
    async fn oldest_held(&self, consumer: &str, types: &[String]) -> Result<Option<Duration>>;
    /// Leases due rows, counts their attempt and commits; in no order. Two callers never get the same row, nor two blocking
    /// rows of one key.
    async fn claim(&self, consumer: &str, claim: &Claim<'_>) -> Result<Vec<Claimed>>;
    /// Tells in how long a row is due, zero if one is; `None` when no row has a time.
    async fn next_due(&self, consumer: &str, types: &[String]) -> Result<Option<Duration>>;
    /// Makes due what waits for nothing: heads that were missed when the row before them went, and events whose type is among
    /// `types` by now. One step looks at some keys after `after`, so that claims need not wait for a large lot.
    async fn make_due(&self, consumer: &str, types: &[String], after: Option<&Bytes>) -> Result<MadeDue>;
    /// Begins a transaction on the lot's own connection. One at a time; nobody cancels it.
    async fn begin(&self, consumer: &str) -> Result<Box<dyn LotTx>>;
}
