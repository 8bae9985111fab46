//! The relay: publishes committed outbox rows to Kafka, in order per key, and removes them after the delivery report.
//!
//! The outbox is a sharded log; see `store::outbox`. Each shard has one leader, which sends rows strictly in the order of their
//! numbers: rows committed by this process come from memory, all others from the table. `machine` and `shard` decide and do no
//! I/O; the simulation in `tests` drives them through crashes, lost answers and stores that go back.

mod alarms;
mod jobs;
mod machine;
mod messages;
mod metrics;
mod read_pace;
mod send;
mod shard;
mod task;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};

use minishop_store::{OutboxRow, OutboxStats, StoreError};
use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;

use crate::hints::{ChangedOrders, Changes};
use task::Handed;
pub use task::{RelayTask, Settings};

/// The handle of the relay, for code that writes outbox rows.
#[derive(Debug, Clone)]
pub struct Relay {
    rows: mpsc::UnboundedSender<Handed>,
    changes: Changes,
    stats: Arc<Mutex<OutboxStats>>,
}

impl Relay {
    /// Hands over rows after a successful commit; call it before answering anybody. Never blocks or fails: rows that are not
    /// taken from memory are read from the table. Wakes the watchers of the orders named in `rows`.
    ///
    /// Never hand over rows of a commit that failed or is in doubt: other rows may get their numbers. Call [`Relay::verify`]
    /// instead.
    pub fn hand_over(&self, rows: Vec<OutboxRow>) {
        // Version 1 is a new order, which nobody can be watching yet.
        let changed = rows.iter().filter(|row| row.event.order_version > Some(1)).filter_map(|row| row.event.order_id);
        self.changes.committed(changed.collect());
        let _ = self.rows.send(Handed::Rows(rows, Instant::now()));
    }

    /// Stops sending until the table has been read. Call this after losing a connection that writes outbox rows: committed rows
    /// may be missing from memory, and the store may be an older copy of itself.
    pub fn verify(&self) {
        let _ = self.rows.send(Handed::Verify);
    }

    /// Calls [`Relay::verify`] after an error that may mean a lost connection.
    pub fn doubt(&self, error: &StoreError) {
        if !matches!(error, StoreError::Fail { .. }) && !error.is_contended() {
            self.verify();
        }
    }

    /// Subscribes to changed orders, here and in other processes. Only a hint: some are missed, so poll as well.
    pub fn changes(&self) -> broadcast::Receiver<ChangedOrders> {
        self.changes.subscribe()
    }

    /// Returns the backlog, as last read from the table.
    pub fn backlog(&self) -> OutboxStats {
        *self.stats.lock().expect("no holder of the statistics panics")
    }
}
