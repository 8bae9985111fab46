//! Which shards this process may send from, and whether rows may skip the table.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::shard::{Shard, State};
use super::task::RelayTask;
use crate::store::{LEASE, Leadership, Role, SHARDS_PER_ROLE};

/// How old the view of being alone may be when rows are sent from memory; a newcomer waits as long before it writes.
const ALONE_FOR: Duration = Duration::from_secs(2);
/// What a lease is shortened by, for the answer's way back and clocks that run unevenly.
const MARGIN: Duration = Duration::from_secs(1);

impl RelayTask {
    /// Takes up renewed leases. They count from before the question: the database's clock may have run on meanwhile.
    pub(super) fn led(&mut self, asked_at: Instant, view: Leadership) {
        let now = Instant::now();
        let until = asked_at + LEASE - MARGIN;
        for (shard, led) in &mut self.shards {
            // Another leader may have sent from it meanwhile: what this process holds of it is out of date.
            if !view.shards.contains(shard) || led.lease_until <= now {
                led.stop(now);
                led.lease_until = now;
            }
        }
        self.shards.retain(|shard, led| view.shards.contains(shard) || led.in_flight > 0);
        for shard in &view.shards {
            self.shards.entry(*shard).or_insert_with(|| Shard::won(until)).lease_until = until;
        }
        let skipped: HashSet<i16> = view.shards.iter().copied().filter(|shard| self.may_skip_table(*shard)).collect();
        self.metrics.shards.set(i64::try_from(view.shards.len()).unwrap_or(i64::MAX));
        self.view = view;
        self.view_at = Some(asked_at);
        self.led_since.get_or_insert(now);
        // Rows that another process wrote until now may wait unseen in the table: they go before rows from memory.
        for (shard, led) in &mut self.shards {
            if !skipped.contains(shard) && led.state == State::Live {
                led.read_first();
            }
        }
        self.settle_in();
    }

    /// Lets the process write once nobody can believe to be alone any more.
    fn settle_in(&self) {
        let alone = self.settings.roles.iter().all(|role| self.view.alone_in.contains(role));
        if self.led_since.is_some_and(|since| alone || since.elapsed() >= ALONE_FOR) {
            self.settled.send_replace(true);
        }
    }

    /// Tells whether rows of a shard may be sent from memory. With a second writer, an earlier acknowledged row of the same
    /// key may wait unseen in the table, so then everything goes through the table.
    pub(super) fn may_skip_table(&self, shard: i16) -> bool {
        let role = if shard < SHARDS_PER_ROLE { Role::Api } else { Role::Worker };
        self.view.alone_in.contains(&role) && self.view_at.is_some_and(|at| at.elapsed() < ALONE_FOR)
    }
}
