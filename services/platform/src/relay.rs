//! The relay: publishes committed outbox rows to Kafka, in order per key, and removes them after the delivery report.
//!
//! The outbox is a sharded log; see `store::outbox`. Each shard has one leader. The leader sends rows strictly in the order of their
//! numbers: rows that this process committed come from memory, all others from the table. `machine` and `shard` make the decisions and
//! do no I/O; the simulation in `tests` drives them through crashes, lost answers and stores that go back.

mod jobs;
mod machine;
mod messages;
mod metrics;
mod send;
mod shard;
mod task;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};

use minishop_contracts::key::spread;
use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;

use crate::hints::{ChangedOrders, Changes};
use crate::store::{OutboxRow, OutboxStats, Role, SHARDS_PER_ROLE, StoreError};
pub use shard::Token;
use task::Handed;
pub use task::{RelayTask, Settings};

/// Computes the outbox shard of a record key, by the hash that Kafka's clients partition with: where the number of partitions is a
/// multiple of the number of shards, a shard means the same partitions for all.
pub fn shard_of(role: Role, record_key: &[u8]) -> i16 {
    let place = i64::from(spread(record_key)) % i64::from(SHARDS_PER_ROLE);
    role.first_shard() + i16::try_from(place).expect("a remainder of a few fits")
}

/// The relay's inbox, for the rooms that write outbox rows.
#[derive(Debug, Clone)]
pub struct Relay {
    rows: mpsc::UnboundedSender<Handed>,
    changes: Changes,
    stats: Arc<Mutex<OutboxStats>>,
}

impl Relay {
    /// Hands over rows whose commit was answered with success, before anybody else is answered. Never blocks and never fails: what the
    /// relay does not take from memory it reads from the table. Whoever watches an order that the rows tell of is woken.
    ///
    /// Never hand over rows of a commit that failed or whose outcome is unknown: their numbers may go to others. [`Relay::verify`]
    /// instead.
    pub fn hand_over(&self, rows: Vec<OutboxRow>) {
        // An order in its first version is new: nobody can have seen it otherwise.
        let changed = rows.iter().filter(|row| row.event.order_version > Some(1)).filter_map(|row| row.event.order_id);
        self.changes.committed(changed.collect());
        let _ = self.rows.send(Handed::Rows(rows, Instant::now()));
    }

    /// Call this after a connection that writes outbox rows was lost. Rows may be committed that nobody hands over, and the store may be
    /// an older copy of itself, so nothing is sent until the table has been read.
    pub fn verify(&self) {
        let _ = self.rows.send(Handed::Verify);
    }

    /// Calls [`Relay::verify`] after an error that may mean a lost connection.
    pub fn doubt(&self, error: &StoreError) {
        if !matches!(error, StoreError::Fail { .. }) && !error.is_contended() {
            self.verify();
        }
    }

    /// Listens for orders that changed, here or in another process. Only a hint: some are missed, so poll as well.
    pub fn changes(&self) -> broadcast::Receiver<ChangedOrders> {
        self.changes.subscribe()
    }

    /// Tells how much waits, as last read from the table.
    pub fn backlog(&self) -> OutboxStats {
        *self.stats.lock().expect("no holder of the statistics panics")
    }
}
