//! The outbox: events that wait for the relay, and who may send them.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use minishop_core::ids::{EventId, OrderId};

use super::Result;

/// How many outbox shards each role has. Fixed for ever: a key's shard must never change while rows wait.
pub const SHARDS_PER_ROLE: i16 = 16;

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
    /// Reads the first rows of each shard but those `held`, `ORDER BY id`, at most `limit` a shard.
    async fn pending(&self, shards: &[i16], held: &[i64], limit: i64) -> Result<Vec<OutboxRow>>;
    /// Reads rows older than `age` by the database's clock, `ORDER BY shard, id`.
    async fn aged(&self, shards: &[i16], age: Duration, limit: i64) -> Result<Vec<OutboxRow>>;
    /// Deletes delivered rows. A lost delete only causes a copy, so this commit need not wait for the disk.
    async fn delete(&self, rows: &[(i16, i64)]) -> Result<()>;
    /// Counts what waits.
    async fn stats(&self) -> Result<OutboxStats>;
}
