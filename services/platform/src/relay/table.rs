//! What the relay reads from the table and deletes from it.

use std::collections::HashMap;
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
                self.shards.retain(|shard, led| view.shards.contains(shard) || led.in_flight > 0);
                for shard in &view.shards {
                    self.shards.entry(*shard).or_insert_with(|| Shard::won(until)).lease_until = until;
                }
                self.view = view;
                self.view_at = Some(now);
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
        match self.outbox.pending(&waiting, READ).await {
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
                    let full = i64::try_from(rows.len()).unwrap_or(READ) >= READ;
                    if full {
                        led.stop(Instant::now());
                        led.state = State::Load;
                    }
                    let before = led.in_hand();
                    led.merge(rows);
                    led.state = if full && led.in_hand() > before { State::Load } else { State::Live };
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
                self.queue(rows);
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
