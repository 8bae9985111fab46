//! The consumer transaction.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use bytes::Bytes;
use minishop_core::idempotency::IdempotencyKey;
use minishop_core::ids::{ClientId, EventId, OrderId};

use super::{AdoptedOrder, AnnouncedBatch, Gate, InboxEntry, Journal, KnownOrder, Result, Transition};

/// A consumer transaction. Dropping it rolls back.
///
/// Steps run in this order: gate, parked keys, orders, adopt, apply, record, commit. The parked-key check that counts comes after
/// the gate, in a later statement: an earlier one misses a concurrent park, and the key's order is lost.
#[async_trait]
pub trait ConsumerTx: Send {
    /// Writes inbox rows. An event that had none before is fresh.
    async fn gate(&mut self, entries: &[InboxEntry]) -> Result<Gate>;
    /// Returns the digests under which events were settled; events that were not are left out.
    async fn known_digests(&mut self, ids: &[EventId]) -> Result<HashMap<EventId, [u8; 32]>>;
    /// Returns the keys that have a blocking event in the lot.
    async fn parked_keys(&mut self, keys: &[Bytes]) -> Result<HashSet<Bytes>>;
    /// Reads orders by id, and by (client, key).
    async fn orders(&mut self, ids: &[OrderId], keys: &[(ClientId, IdempotencyKey)]) -> Result<Vec<KnownOrder>>;
    /// Inserts orders that came by events; returns those inserted (the others' id or key exists).
    async fn adopt(&mut self, orders: &[AdoptedOrder]) -> Result<HashSet<OrderId>>;
    /// Changes the status of each order that passes the fence, and writes its timeline row; returns those that passed. `record`
    /// appends their events.
    async fn apply(&mut self, transitions: &[Transition]) -> Result<HashSet<OrderId>>;
    /// Writes the rest, the events last: their shards stay locked until the commit. Returns the outbox numbers of
    /// `journal.events` in their order.
    ///
    /// Fails with [`super::Why::WentBack`] if the store is behind what the consumer has seen.
    async fn record(&mut self, journal: &Journal) -> Result<Vec<i64>>;
    /// Commits. Only then may the offsets be committed to the broker.
    async fn commit(self: Box<Self>) -> Result<()>;
}

/// The inbox: which events a consumer has settled, and how far it has read.
#[async_trait]
pub trait Inbox: Send + Sync + std::fmt::Debug {
    /// Begins a consumer transaction on the worker's own connection. One at a time; never cancelled.
    async fn begin(&self, consumer: &str) -> Result<Box<dyn ConsumerTx>>;

    /// Returns whether [`Self::settle_announced`] can be used. SQLite has no round trips to save.
    fn settles_announced(&self) -> bool {
        false
    }

    /// Settles a batch in one statement and commits, if every event is new, no key has a blocking event in the lot, every order
    /// is as its event announced it, and each position was stored before and is not behind what the consumer has seen. Returns
    /// the outbox numbers of the events in their order. `None` means that something differs and nothing was written: take the
    /// steps.
    async fn settle_announced(&self, consumer: &str, batch: &AnnouncedBatch<'_>) -> Result<Option<Vec<i64>>> {
        let _ = (consumer, batch);
        Ok(None)
    }
}
