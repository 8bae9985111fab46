//! The relay: takes committed outbox rows to the broker, in order per key, and deletes them after the broker's report.
//!
//! The outbox is a log in shards; see `store::outbox`. A shard has one leader, which sends its rows in the order of their numbers,
//! each only behind the one before: rows that this process committed come from memory, all others from the table. What the
//! leader decides stands in `shard` and `machine`, which do no I/O; a simulation (`tests`) drives them through everything that can go wrong.

mod jobs;
mod machine;
mod metrics;
mod said;
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

    /// Says that a connection that writes outbox rows was lost, or is new: rows may have been committed that nobody hands over, and the
    /// store may be an older copy of itself. Nothing is sent before the table has been looked at.
    pub fn verify(&self) {
        let _ = self.rows.send(Handed::Verify);
    }

    /// Verifies after an error that may have been a lost connection.
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
