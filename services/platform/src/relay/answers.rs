//! What the store's answers mean for the shards.

use std::collections::HashMap;
use std::time::Duration;

use minishop_core::backoff::Backoff;
use tokio::time::Instant;

use super::jobs::{Done, POLL, READ};
use super::shard::State;
use super::task::RelayTask;
use crate::store::{OutboxRow, Result, StoreError};

/// How often the outbox is counted at most.
const COUNT: Duration = Duration::from_secs(1);

impl RelayTask {
    /// Takes up what a job brought.
    pub(super) fn done(&mut self, done: Done) {
        match done {
            Done::Led(asked_at, view) => {
                self.agenda.leasing = false;
                if let Some(view) = self.answered("lead", view) {
                    self.led(asked_at, view);
                }
            }
            Done::Counted(asked_at, stats) => {
                self.agenda.counting = false;
                // Counting a long backlog takes long: it may take a twentieth of the time, no more.
                self.agenda.count_at = Instant::now() + (asked_at.elapsed() * 20).max(COUNT);
                if let Some(stats) = self.answered("stats", stats) {
                    *self.stats.lock().expect("no holder of the statistics panics") = stats;
                    self.metrics.counted(stats);
                }
            }
            Done::Loaded(asked, rows) => {
                self.agenda.reading = false;
                let rows = self.answered("load", rows);
                self.loaded(&asked, rows);
            }
            Done::Polled(rows) => {
                self.agenda.reading = false;
                self.polled(rows);
            }
            Done::Swept(rows) => {
                self.agenda.reading = false;
                for row in self.answered("sweep", rows).unwrap_or_default() {
                    if let Some(led) = self.shards.get_mut(&row.event.shard).filter(|led| !led.holds(row.id)) {
                        // Read with its neighbours, so that it takes its place by id among what is queued.
                        led.read_first();
                    }
                }
            }
            Done::Deleted(rows, result) => {
                self.agenda.reading = false;
                match self.answered("delete", result) {
                    None => self.deletes.extend(rows),
                    Some(()) => {
                        for (number, id) in rows {
                            if let Some(led) = self.shards.get_mut(&number) {
                                led.deleted(id);
                            }
                        }
                    }
                }
            }
        }
    }

    fn loaded(&mut self, asked: &[i16], rows: Option<Vec<OutboxRow>>) {
        let failed = rows.is_none();
        let mut by_shard: HashMap<i16, Vec<OutboxRow>> = HashMap::new();
        for row in rows.unwrap_or_default() {
            by_shard.entry(row.event.shard).or_default().push(row);
        }
        for shard in asked {
            // What happened to the shard meanwhile (lost, won again, broken, to be read again) makes this read worthless.
            let Some(led) = self.shards.get_mut(shard).filter(|led| led.state == State::Loading) else { continue };
            if failed {
                led.state = State::Load;
                continue;
            }
            let rows = by_shard.remove(shard).unwrap_or_default();
            // A full page means that more wait behind it: those come before anything from memory.
            let full = i64::try_from(rows.len()).unwrap_or(READ) >= READ;
            if full {
                led.drop_queue();
            }
            led.merge(rows);
            led.state = if full { State::Behind } else { State::Live };
        }
    }

    fn polled(&mut self, rows: Result<Vec<OutboxRow>>) {
        let Some(rows) = self.answered("poll", rows) else { return };
        let mut taken = 0;
        for row in rows {
            if let Some(led) = self.shards.get_mut(&row.event.shard).filter(|led| led.state == State::Live) {
                taken += led.take([row]);
            }
        }
        self.agenda.poll_every = if taken > 0 { POLL.0 } else { (self.agenda.poll_every * 2).min(POLL.1) };
    }

    /// Notes whether the store answered: after a failure every job waits a little longer.
    fn answered<T>(&mut self, job: &'static str, outcome: Result<T>) -> Option<T> {
        match outcome {
            Ok(value) => {
                if self.agenda.failures > 0 {
                    tracing::info!("the relay reaches the store again");
                }
                self.agenda.failures = 0;
                self.status.set("relay", Ok(()));
                Some(value)
            }
            Err(error) => {
                self.store_failed(job, &error);
                None
            }
        }
    }

    fn store_failed(&mut self, job: &'static str, error: &StoreError) {
        self.agenda.failures = self.agenda.failures.saturating_add(1);
        let wait = Backoff::INFRASTRUCTURE.wait(self.agenda.failures, rand::random()).min(Duration::from_secs(5));
        self.agenda.retry_at = Instant::now() + wait.max(Duration::from_millis(10));
        if self.agenda.failures == 1 {
            tracing::warn!(job, error = ?error, "the relay cannot reach the store; it tries on");
        }
        self.status.set("relay", Err("the store does not answer".to_owned()));
    }
}
