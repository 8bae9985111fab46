//! The relay: takes committed outbox rows to the broker, in order per key, and deletes them after the broker's report.

use minishop_contracts::key::spread;
use tokio::sync::mpsc;

use crate::store::{OutboxRow, OutboxStats, Role, SHARDS_PER_ROLE};

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
    stats: std::sync::Arc<std::sync::Mutex<OutboxStats>>,
}

impl Relay {
    /// Hands over rows that were just committed, before anything is answered. Never blocks and never fails: what the relay
    /// does not take from memory it reads from the table.
    pub fn hand_over(&self, rows: Vec<OutboxRow>) {
        let _ = self.rows.send(rows);
    }

    /// Tells how much waits, as last read from the table.
    pub fn backlog(&self) -> OutboxStats {
        *self.stats.lock().expect("no holder of the statistics panics")
    }
}
