//! The relay: takes committed outbox rows to the broker, in order per key, and deletes them after the broker's report.
//!
//! The outbox is a pending set. A shard has one leader; the leader sends the shard's rows in the order of their ids. Rows that
//! this process committed are sent from memory; the table is read when a shard is won, after an error, for rows that others
//! wrote, and by a sweep for rows that a killed process's backend committed late.

mod answers;
mod jobs;
mod lease;
mod metrics;
mod send;
mod shard;
mod task;

use std::sync::{Arc, Mutex};

use minishop_contracts::key::spread;
use tokio::sync::{broadcast, mpsc, watch};

use crate::hints::{ChangedOrders, Changes};
use crate::store::{OutboxRow, OutboxStats, Role, SHARDS_PER_ROLE};
pub use task::{RelayTask, Settings};

/// Computes the outbox shard of a record key: 16 for each role, by the hash that Kafka's clients partition with.
pub fn shard_of(role: Role, record_key: &[u8]) -> i16 {
    let base = match role {
        Role::Api => 0,
        Role::Worker => SHARDS_PER_ROLE,
    };
    base + i16::try_from(i64::from(spread(record_key)) % i64::from(SHARDS_PER_ROLE)).expect("a remainder of 16 fits")
}

/// The relay's inbox, for the rooms that write outbox rows.
#[derive(Debug, Clone)]
pub struct Relay {
    rows: mpsc::UnboundedSender<Vec<OutboxRow>>,
    changes: Changes,
    stats: Arc<Mutex<OutboxStats>>,
    settled: watch::Receiver<bool>,
}

impl Relay {
    /// Hands over rows that were just committed, before anything is answered. Never blocks and never fails: what the relay
    /// does not take from memory it reads from the table. Whoever watches an order that the rows tell of is woken.
    pub fn hand_over(&self, rows: Vec<OutboxRow>) {
        // An order in its first version is new: nobody can have seen it otherwise.
        let changed = rows.iter().filter(|row| row.event.order_version > Some(1)).filter_map(|row| row.event.order_id);
        self.changes.committed(changed.collect());
        let _ = self.rows.send(rows);
    }

    /// Listens for orders that changed, here or in another process. Only a hint: some are missed, so poll as well.
    pub fn changes(&self) -> broadcast::Receiver<ChangedOrders> {
        self.changes.subscribe()
    }

    /// Tells how much waits, as last read from the table.
    pub fn backlog(&self) -> OutboxStats {
        *self.stats.lock().expect("no holder of the statistics panics")
    }

    /// Waits until this process may write outbox rows: until then another process may still believe that it is alone.
    pub async fn settled(&self) {
        // An error means that the relay has ended, and then the process ends too.
        let _ = self.settled.clone().wait_for(|settled| *settled).await;
    }
}
