//! What the relay reads from the table and deletes from it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use minishop_core::backoff::Backoff;
use tokio::time::Instant;

use super::shard::{Shard, State};
use super::task::{READ, RelayTask};
use crate::store::{LEASE, OutboxRow, StoreError};

impl RelayTask {
    /// Renews leases; a lease counts from before the call, since the database's clock may have run on meanwhile.
    pub(super) async fn renew(&mut self, now: Instant) {
        match self.outbox.lead(&self.settings.owner, &self.settings.roles).await {
            Ok(view) => {
                self.worked();
                let until = now + LEASE - Duration::from_secs(1);
                for (shard, led) in &mut self.shards {
                    let kept = view.shards.contains(shard);
                    // Another leader may have sent from it meanwhile: what this process holds of it is out of date.
                    if !kept || led.lease_until <= Instant::now() {
                        led.stop(now);
                        led.lease_until = now;
                    }
                }
                self.shards.retain(|shard, led| view.shards.contains(shard) || led.in_flight > 0);
                for shard in &view.shards {
                    self.shards.entry(*shard).or_insert_with(|| Shard::won(until)).lease_until = until;
                }
                let skipped: HashSet<i16> = view.shards.iter().copied().filter(|shard| self.may_skip_table(*shard)).collect();
                self.view = view;
                self.view_at = Some(now);
                self.led_since.get_or_insert_with(Instant::now);
                // Rows that another process wrote until now may wait unseen in the table: they go before rows from memory.
                for (shard, led) in &mut self.shards {
                    if !skipped.contains(shard) && led.state == State::Live {
                        led.read_first();
                    }
                }
                if let Ok(stats) = self.outbox.stats().await {
                    *self.stats.lock().expect("no holder of the statistics panics") = stats;
                }
            }
            Err(error) => self.store_failed("renew", &error),
        }
    }

    /// Reads shards that were just won or mended.
    pub(super) async fn load(&mut self) {
        let waiting: Vec<i16> = self.shards.iter().filter(|(_, led)| led.state == State::Load).map(|(shard, _)| *shard).collect();
        if waiting.is_empty() {
            return;
        }
        // Rows in hand stand in the table until they are deleted, before those that are wanted.
        let held = waiting.iter().filter_map(|shard| self.shards.get(shard)).map(Shard::in_hand).max().unwrap_or(0);
        let page = READ + i64::try_from(held).unwrap_or(0);
        match self.outbox.pending(&waiting, page).await {
            Ok(rows) => {
                self.worked();
                let mut by_shard: HashMap<i16, Vec<OutboxRow>> = HashMap::new();
                for row in rows {
                    by_shard.entry(row.event.shard).or_default().push(row);
                }
                for shard in waiting {
                    let rows = by_shard.remove(&shard).unwrap_or_default();
                    let Some(led) = self.shards.get_mut(&shard) else { continue };
                    // A full page means that more wait behind it: those come before anything from memory.
                    let full = i64::try_from(rows.len()).unwrap_or(page) >= page;
                    if full {
                        led.drop_queue();
                    }
                    led.merge(rows);
                    led.state = if full { State::Behind } else { State::Live };
                }
            }
            Err(error) => self.store_failed("load", &error),
        }
    }

    /// Reads rows that other processes wrote; faster while there are some.
    pub(super) async fn poll(&mut self) {
        let shared: Vec<i16> = self
            .shards
            .iter()
            .filter(|(shard, led)| led.state == State::Live && !self.may_skip_table(**shard))
            .map(|(s, _)| *s)
            .collect();
        if shared.is_empty() {
            return;
        }
        match self.outbox.pending(&shared, READ).await {
            Ok(rows) => {
                self.worked();
                let taken = self.queue(rows);
                self.poll_every =
                    if taken > 0 { Duration::from_millis(10) } else { (self.poll_every * 2).min(Duration::from_millis(50)) };
            }
            Err(error) => self.store_failed("poll", &error),
        }
    }

    /// Reads rows that have waited for 2 s and are not in hand: a killed process's backend may commit its last statement
    /// after the new leader has read the table.
    pub(super) async fn sweep(&mut self) {
        let led: Vec<i16> = self.shards.iter().filter(|(_, led)| led.state == State::Live).map(|(shard, _)| *shard).collect();
        if led.is_empty() {
            return;
        }
        match self.outbox.aged(&led, Duration::from_secs(2), READ).await {
            Ok(rows) => {
                self.worked();
                for row in rows {
                    if let Some(led) = self.shards.get_mut(&row.event.shard).filter(|led| !led.holds(row.id)) {
                        // Read with its neighbours, so that it takes its place by id among what is queued.
                        led.read_first();
                    }
                }
            }
            Err(error) => self.store_failed("sweep", &error),
        }
    }

    pub(super) fn queue(&mut self, rows: Vec<OutboxRow>) -> usize {
        rows.into_iter().map(|row| self.shards.get_mut(&row.event.shard).map_or(0, |led| led.take([row]))).sum()
    }

    pub(super) async fn delete(&mut self) {
        if self.deletes.is_empty() {
            return;
        }
        match self.outbox.delete(&self.deletes).await {
            Ok(()) => {
                self.worked();
                for (number, id) in self.deletes.drain(..) {
                    if let Some(led) = self.shards.get_mut(&number) {
                        led.deleted(id);
                    }
                }
            }
            Err(error) => self.store_failed("delete", &error),
        }
    }

    pub(super) fn worked(&mut self) {
        if self.failures > 0 {
            tracing::info!("the relay reaches the store again");
        }
        self.failures = 0;
        self.status.set("relay", Ok(()));
    }

    pub(super) fn store_failed(&mut self, step: &'static str, error: &StoreError) {
        self.failures = self.failures.saturating_add(1);
        let wait = Backoff::INFRASTRUCTURE.wait(self.failures, rand::random()).min(Duration::from_secs(5));
        self.retry_at = Instant::now() + wait.max(Duration::from_millis(10));
        if self.failures == 1 {
            tracing::warn!(step, error = ?error, "the relay cannot reach the store; it tries on");
        }
        self.status.set("relay", Err("the store does not answer".to_owned()));
    }
}
