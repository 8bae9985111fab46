//! The outbox: events that wait to be published, and which process may publish them.
//!
//! The outbox is a log in shards. Inside a shard, numbers are gapless and in commit order: a transaction locks the shard, takes
//! its numbers, and unlocks the shard only with its commit. So a reader that sees a number has seen all numbers before it. The
//! shard's lock is the last lock of a transaction, so that it is held briefly.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use minishop_contracts::key::spread;
use minishop_core::ids::{EventId, OrderId};

use super::error::OpenError;
use super::{PastOrder, Result};

/// How many outbox shards each role has. A key's shard must never change while rows wait, so the store has the number too, and a
/// store with another number is refused when it is opened.
pub const SHARDS_PER_ROLE: i16 = 4;
/// The distance between the first shards of the roles, whatever the number of shards.
pub(crate) const ROLE_STRIDE: i16 = 16;

/// Returns the outbox shard of a record key, by the hash with which Kafka's clients choose partitions: if the number of
/// partitions is a multiple of the number of shards, every partition belongs to one shard.
pub fn shard_of(role: Role, record_key: &[u8]) -> i16 {
    let place = i64::from(spread(record_key)) % i64::from(SHARDS_PER_ROLE);
    role.first_shard() + i16::try_from(place).expect("a remainder of a few fits")
}

/// An event to publish, before the database has given it a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// The outbox shard, from role and record key; see [`shard_of`].
    pub shard: i16,
    pub event_id: EventId,
    pub topic: String,
    pub record_key: Bytes,
    /// The order that the event is about; `None` for dead letters without one.
    pub order_id: Option<OrderId>,
    pub order_version: Option<i32>,
    /// The record value: at most 262 144 bytes, except on the dead-letter topic. `None` is Kafka's null value.
    pub payload: Option<Bytes>,
    /// The record headers, as `bus::Headers` encodes them.
    pub headers: Bytes,
    /// Set if value and headers follow from the order: they are not stored. Of a row that was read they are missing until they
    /// are rebuilt.
    pub brief: Option<Brief>,
}

/// What the outbox stores of an event in place of its value and headers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Brief {
    /// The trace that the headers name, if the order does not have it.
    pub trace: Option<String>,
}

/// An outbox row: an event and its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    /// The number within the shard, from 1, without gaps. Rows are sent in this order.
    pub number: i64,
    pub event: NewEvent,
    /// Whether the leader passes over it: it was set aside, or fills a missing number.
    pub set_aside: bool,
}

impl OutboxRow {
    /// Makes the row of an event that was just committed.
    pub const fn new(number: i64, event: NewEvent) -> Self {
        Self { number, event, set_aside: false }
    }

    /// Estimates how many bytes it takes in memory.
    pub fn size(&self) -> usize {
        let NewEvent { record_key, payload, headers, .. } = &self.event;
        256 + record_key.len() + payload.as_ref().map_or(0, Bytes::len) + headers.len()
    }
}

/// The process role that wrote an outbox row; each role has [`SHARDS_PER_ROLE`] shards of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Shards from 0.
    Api,
    /// Shards from 16.
    Worker,
}

impl Role {
    /// Both roles.
    pub const ALL: [Self; 2] = [Self::Api, Self::Worker];

    /// Returns the first of its shards.
    pub const fn first_shard(self) -> i16 {
        match self {
            Self::Api => 0,
            Self::Worker => ROLE_STRIDE,
        }
    }

    /// Returns its shards.
    pub fn shards(self) -> std::ops::Range<i16> {
        self.first_shard()..self.first_shard() + SHARDS_PER_ROLE
    }
}

/// Refuses a store with other outbox shards: new rows of a key would overtake those that wait there.
pub(super) fn check_shards(found: &[i16]) -> std::result::Result<(), OpenError> {
    if Role::ALL.into_iter().flat_map(Role::shards).eq(found.iter().copied()) {
        return Ok(());
    }
    let found = found.iter().map(i16::to_string).collect::<Vec<_>>().join(" ");
    Err(OpenError::Unsafe { setting: "outbox_shard", found, needed: "the shards 0 to 3 and 16 to 19" })
}

/// The statement whose rows [`check_shards`] checks.
pub(super) const SHARDS: &str = "SELECT shard FROM outbox_shard ORDER BY shard";

/// A shard that a process leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Led {
    pub shard: i16,
    /// How often the lease has been taken. A renewal keeps it.
    pub epoch: i64,
    /// The number up to which everything is published, as stored.
    pub acknowledged: i64,
    /// Whether it is beyond the process's share: another process waits for it.
    pub surplus: bool,
}

/// A request to renew leases.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Renewal {
    /// Leases to take with a new epoch.
    pub anew: Vec<i16>,
    /// Surplus shards with nothing in flight: their leases may go to other processes.
    pub finished: Vec<i16>,
}

/// What a process leads after a renewal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leadership {
    /// The shards that this process may send from, until `LEASE` after the renewal *began*.
    pub shards: Vec<Led>,
    /// Whether other processes write to shards of these roles: their rows are not handed over to this one.
    pub others_write: bool,
}

/// How long a lease lasts after its renewal, by the database's clock.
pub const LEASE: Duration = Duration::from_secs(10);

/// Which rows of a shard to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub shard: i16,
    pub low: i64,
    /// The number after the last.
    pub high: i64,
}

/// Published numbers that follow the stored one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    pub shard: i16,
    /// The epoch of the lease.
    pub epoch: i64,
    /// The acknowledged number that is stored so far.
    pub low: i64,
    /// The events of the next numbers, at least one. The removed rows must be exactly these.
    pub events: Vec<EventId>,
}

impl Acknowledged {
    /// Returns the acknowledged number to store: the last of these.
    pub fn high(&self) -> i64 {
        self.low + i64::try_from(self.events.len()).expect("fewer than 2^63 events")
    }
}

/// The outbox backlog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutboxStats {
    pub depth: i64,
    /// Age of the oldest, by the database's clock.
    pub oldest: Duration,
}

/// The outbox. A shard has one leader, which reads, sends and removes its rows.
#[async_trait]
pub trait Outbox: Send + Sync + std::fmt::Debug {
    /// Renews, takes and gives back leases for a process that is alive in `roles`.
    ///
    /// A process takes shards whose lease has expired: up to its share in each of `roles`, and all shards of a role that no live
    /// process has. Shards beyond its share are marked as `surplus`; it gives them back when [`Renewal::finished`] names them,
    /// since records that are in flight when a lease changes hands are published twice. With SQLite one process leads all shards:
    /// the lock on the data directory is the lease.
    async fn lead(&self, owner: &str, roles: &[Role], renewal: &Renewal) -> Result<Leadership>;
    /// Gives back all leases of a process and signs it off.
    async fn release(&self, owner: &str) -> Result<()>;
    /// Reads the rows of each span in number order, at most `limit` a span, each span in one snapshot. Brief rows come without
    /// value and headers.
    async fn read(&self, spans: &[Span], limit: i64) -> Result<Vec<OutboxRow>>;
    /// Reads the orders from which brief rows are rebuilt; absent ones are left out.
    async fn past_orders(&self, ids: &[OrderId]) -> Result<Vec<PastOrder>>;
    /// Stores the number up to which each shard is published, and removes the rows before it. Returns `false`, and writes nothing,
    /// if the store contradicts the caller: another process has the lease, a number belongs to another event, or rows are gone.
    /// The commit does not wait for the disk: if it is lost, events are published twice, and none is lost.
    async fn acknowledge(&self, owner: &str, published: &[Acknowledged]) -> Result<bool>;
    /// Returns how many connections this process has opened: behind a new one the store may be another copy of itself.
    fn connections(&self) -> u64;
    /// Returns the backlog.
    async fn stats(&self) -> Result<OutboxStats>;
    /// Frees the space of removed rows; returns `false` when the process lacks the privilege.
    async fn vacuum(&self) -> Result<bool>;
}
