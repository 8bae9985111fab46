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

use minishop_store::{OutboxRow, OutboxStats};
use tokio::sync::mpsc;
use tokio::time::Instant;

use task::Handed;
pub use task::{RelaySettings, RelayTask};

/// The handle of the relay. Code that writes outbox rows reports to [`Commits`](crate::ctx::Commits) instead.
#[derive(Debug, Clone)]
pub struct Relay {
    rows: mpsc::UnboundedSender<Handed>,
    stats: Arc<Mutex<OutboxStats>>,
}

impl Relay {
    /// Hands over rows after a successful commit. Never blocks or fails: rows that are not taken from memory are read from the
    /// table.
    ///
    /// Never hand over rows of a commit that failed or is in doubt: other rows may get their numbers. Call [`Relay::verify`]
    /// instead.
    pub fn hand_over(&self, rows: Vec<OutboxRow>) {
        let _ = self.rows.send(Handed::Rows(rows, Instant::now()));
    }

    /// Stops sending until the table has been read. Call this after losing a connection that writes outbox rows: committed rows
    /// may be missing from memory, and the store may be an older copy of itself.
    pub fn verify(&self) {
        let _ = self.rows.send(Handed::Verify);
    }

    /// Returns the backlog, as last read from the table.
    pub fn backlog(&self) -> OutboxStats {
        *self.stats.lock().expect("no holder of the statistics panics")
    }
}
