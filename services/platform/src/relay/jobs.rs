//! The relay's requests to the store. They run beside the task, which keeps sending meanwhile.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use minishop_core::backoff::Backoff;
use minishop_store::{Acknowledged, Leadership, OutboxRow, OutboxStats, Result, StoreError};

use super::messages::{Aside, Job, Want};
use super::shard::{Ask, Moment};
use super::task::RelayTask;

/// The interval of `Outbox::stats`.
const MEASURE: Duration = Duration::from_secs(1);
/// The interval of vacuums, and the fewest removed rows that justify one.
const VACUUM: Duration = Duration::from_secs(1);
const WORTH_A_VACUUM: i64 = 1_000;
/// The longest pause between requests while the store is away.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The answer to a request.
pub(super) enum Done {
    /// Leases, requested at this time.
    Led(Moment, Result<Leadership>),
    /// Rows, at most this many of each shard.
    Brought(Vec<Ask>, usize, Result<Vec<OutboxRow>>),
    /// Whether the store accepted the published numbers.
    Acknowledged(Vec<Acknowledged>, Result<bool>),
    /// Whether the store has set the row aside.
    Aside(Aside, Result<bool>),
    /// The backlog.
    Measured(Result<OutboxStats>),
    /// Whether this process may vacuum.
    Vacuumed(Result<bool>),
}

/// Statistics and vacuum, which the machine does not decide on.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    measuring: bool,
    measure_at: Moment,
    vacuuming: bool,
    vacuum_at: Moment,
    /// Rows removed since the last vacuum.
    removed: i64,
    may_not_vacuum: bool,
    /// Consecutive failed requests.
    failures: u32,
}

impl RelayTask {
    /// Starts the requests that are due.
    pub(super) fn start_jobs(&mut self, now: Moment) {
        for want in self.machine.wants(now) {
            let (outbox, settings) = (self.outbox.clone(), self.settings.clone());
            let job: BoxFuture<'static, Done> = match want {
                Want::Lead(renewal) => {
                    async move { Done::Led(now, outbox.lead(&settings.owner, &settings.roles, &renewal).await) }.boxed()
                }
                Want::Read(asks, limit) => async move {
                    let spans: Vec<_> = asks.iter().flat_map(|ask| ask.spans.iter().copied()).collect();
                    let rows = outbox.read(&spans, i64::try_from(limit).unwrap_or(i64::MAX)).await;
                    Done::Brought(asks, limit, rows)
                }
                .boxed(),
                Want::Acknowledge(published) => async move {
                    let agreed = outbox.acknowledge(&settings.owner, &published).await;
                    Done::Acknowledged(published, agreed)
                }
                .boxed(),
                Want::SetAside(aside) => {
                    let operations = self.operations.clone();
                    async move {
                        let Aside { token, event_id, reason } = &aside;
                        let agreed = operations.set_row_aside(token.shard, token.number, *event_id, reason).await;
                        Done::Aside(aside, agreed)
                    }
                    .boxed()
                }
            };
            self.jobs.push(job);
        }
        if !self.upkeep.measuring && now >= self.upkeep.measure_at {
            self.upkeep.measuring = true;
            self.upkeep.measure_at = now + MEASURE;
            let outbox = self.outbox.clone();
            self.jobs.push(async move { Done::Measured(outbox.stats().await) }.boxed());
        }
        if !self.upkeep.vacuuming && now >= self.upkeep.vacuum_at && self.upkeep.removed >= WORTH_A_VACUUM {
            self.upkeep.vacuuming = true;
            self.upkeep.vacuum_at = now + VACUUM;
            self.upkeep.removed = 0;
            let outbox = self.outbox.clone();
            self.jobs.push(async move { Done::Vacuumed(outbox.vacuum().await) }.boxed());
        }
    }

    /// Returns when to call `start_jobs` again if nothing else happens before.
    pub(super) fn look_again(&self, now: Moment) -> Moment {
        self.machine.look_again(now).min(self.upkeep.measure_at.max(now + Duration::from_millis(1)))
    }

    /// Handles the answer to a request.
    pub(super) fn done(&mut self, done: Done, now: Moment) {
        match done {
            Done::Led(asked_at, view) => match view {
                Ok(view) => {
                    self.answered();
                    self.metrics.shards.set(i64::try_from(view.shards.len()).unwrap_or(i64::MAX));
                    self.machine.led(asked_at, &view);
                }
                Err(error) => self.store_failed(Job::Lead, &error, now),
            },
            Done::Brought(asks, limit, rows) => match rows {
                Ok(rows) => self.machine.brought(&asks, limit, rows, now),
                Err(error) => self.store_failed(Job::Read, &error, now),
            },
            Done::Acknowledged(published, agreed) => match agreed {
                Ok(agreed) => self.upkeep.removed += self.machine.acknowledged(&published, agreed),
                Err(error) => self.store_failed(Job::Acknowledge, &error, now),
            },
            Done::Aside(aside, agreed) => match agreed {
                Ok(agreed) => {
                    if agreed {
                        self.tell_aside(&aside);
                    }
                    self.machine.aside(&aside, agreed);
                }
                Err(error) => self.store_failed(Job::SetAside, &error, now),
            },
            Done::Measured(stats) => {
                self.upkeep.measuring = false;
                // A failed measurement is not reported: the leases show whether the store answers.
                if let Ok(stats) = stats {
                    *self.stats.lock().expect("no holder of the statistics panics") = stats;
                    self.metrics.measured(stats);
                }
            }
            Done::Vacuumed(outcome) => {
                self.upkeep.vacuuming = false;
                match outcome {
                    Ok(false) if !self.upkeep.may_not_vacuum => {
                        self.upkeep.may_not_vacuum = true;
                        tracing::warn!("this process may not VACUUM the outbox; its table grows until autovacuum runs");
                        self.status.note("outbox", Some("may not VACUUM outbox_event: make this role its owner".to_owned()));
                    }
                    Ok(_) => {}
                    Err(error) => tracing::debug!(error = ?error, "cannot vacuum the outbox"),
                }
            }
        }
        self.tell_alarms();
    }

    fn answered(&mut self) {
        if self.upkeep.failures > 0 {
            tracing::info!("the relay reaches the store again");
        }
        self.upkeep.failures = 0;
        self.status.set("relay", Ok(()));
    }

    fn store_failed(&mut self, job: Job, error: &StoreError, now: Moment) {
        self.upkeep.failures = self.upkeep.failures.saturating_add(1);
        let wait = Backoff::INFRASTRUCTURE.wait(self.upkeep.failures, rand::random()).min(LONGEST_PAUSE);
        if self.upkeep.failures == 1 {
            tracing::warn!(job = ?job, error = ?error, "the relay cannot reach the store; retrying");
        }
        self.status.set("relay", Err("the store does not answer".to_owned()));
        self.machine.store_failed(job, now + wait.max(Duration::from_millis(10)));
    }
}
