//! The relay's task: it sends rows, handles delivery reports and starts requests to the store. It never waits for store or
//! broker.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use minishop_bus::produce::Compression;
use minishop_store::{OutboxRow, OutboxStats, Role, Store, StoreError};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Relay;
use super::alarms::Alarms;
use super::jobs::{Done, StoreJobs};
use super::machine::Machine;
use super::messages::Job;
use super::metrics::RelayMetrics;
use super::send::Sender;
use super::shard::Moment;
use crate::ctx::{Metrics, Status};
use crate::hints::Hints;

/// How long a drain waits for reports, then for the store.
const DRAIN: Duration = Duration::from_secs(5);

/// The relay's settings.
#[derive(Debug, Clone)]
pub struct RelaySettings {
    /// The owner of this process's leases; unique per start.
    pub owner: String,
    pub roles: Vec<Role>,
    pub brokers: String,
    pub compression: Compression,
    /// Wakes relays that lead shards of rows written elsewhere.
    pub hints: Hints,
}

/// Runs the relay. Created with its [`Relay`] handle. Joins the state machine to the store, the broker and the writers of rows.
pub struct RelayTask {
    machine: Machine,
    store: StoreJobs,
    sender: Sender,
    alarms: Alarms,
    rows: mpsc::UnboundedReceiver<Handed>,
    hints: Hints,
    backlog: Arc<Mutex<OutboxStats>>,
    status: Status,
    metrics: RelayMetrics,
    may_not_vacuum: bool,
    began: Instant,
}

/// A message from a writer of outbox rows.
#[derive(Debug)]
pub(super) enum Handed {
    /// These rows are committed; the store confirmed it at this time.
    Rows(Vec<OutboxRow>, Instant),
    /// A connection that writes was lost: there may be committed rows that nobody hands over.
    Verify,
}

impl std::fmt::Debug for RelayTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelayTask").field("machine", &self.machine).finish_non_exhaustive()
    }
}

impl RelayTask {
    /// Creates a relay and its handle. Call once per process: it registers metrics.
    pub fn new(store: &Store, settings: RelaySettings, status: Status, metrics: &Metrics) -> anyhow::Result<(Relay, Self)> {
        let RelaySettings { owner, roles, brokers, compression, hints } = settings;
        let (hand_over, rows) = mpsc::unbounded_channel();
        let backlog = Arc::new(Mutex::new(OutboxStats::default()));
        let metrics = RelayMetrics::register(metrics);
        let task = Self {
            machine: Machine::default(),
            store: StoreJobs::new(store, &owner, &roles),
            sender: Sender::new(brokers, compression, backlog.clone(), status.clone(), metrics.clone())?,
            alarms: Alarms::new(status.clone(), metrics.clone()),
            rows,
            hints,
            backlog: backlog.clone(),
            status,
            metrics,
            may_not_vacuum: false,
            began: Instant::now(),
        };
        Ok((Relay { rows: hand_over, stats: backlog }, task))
    }

    /// Sends until `drain` is cancelled; then waits up to 5 s for reports, stores what is published and gives the leases back.
    pub async fn run(mut self, drain: CancellationToken) -> anyhow::Result<()> {
        let (mut rows, mut reports) = (Vec::new(), Vec::new());
        loop {
            let look_again = self.advance();
            tokio::select! {
                biased;
                () = drain.cancelled() => break,
                Some(done) = self.store.next() => self.done(done),
                count = self.sender.reports.recv_many(&mut reports, 1000) => if count == 0 { break },
                count = self.rows.recv_many(&mut rows, 100) => if count == 0 { break },
                () = self.hints.heard() => self.machine.look(),
                () = tokio::time::sleep_until(look_again) => {}
            }
            // All reports at once: nothing may be sent behind a record that has failed.
            while let Ok(report) = self.sender.reports.try_recv() {
                reports.push(report);
            }
            let now = self.now();
            for report in reports.drain(..) {
                if self.sender.report(report, &mut self.machine, now) {
                    // The rest are reports of the old producer.
                    break;
                }
            }
            for handed in rows.drain(..) {
                self.take(handed);
            }
        }
        self.finish().await;
        Ok(())
    }

    fn now(&self) -> Moment {
        self.began.elapsed()
    }

    /// Starts the requests that are due, and sends; returns when to call it again at the latest.
    fn advance(&mut self) -> Instant {
        let now = self.now();
        for want in self.machine.wants(now) {
            self.store.start(want, now);
        }
        self.store.start_upkeep(now);
        self.sender.send(&mut self.machine, now);
        self.began + self.machine.look_again(now).min(self.store.upkeep_at(now))
    }

    fn take(&mut self, handed: Handed) {
        match handed {
            Handed::Rows(rows, answered_at) => {
                if self.store.reconnected() {
                    self.machine.verify(self.now());
                }
                if self.machine.hand(rows, answered_at.saturating_duration_since(self.began)) {
                    // Wake their leader before its next read is due.
                    self.hints.committed();
                }
            }
            Handed::Verify => {
                self.machine.verify(self.now());
                self.hints.committed();
            }
        }
        self.raise_alarms();
    }

    /// Handles the answer to a request.
    fn done(&mut self, done: Done) {
        let now = self.now();
        match done {
            Done::Led(asked_at, Ok(view)) => {
                if self.store.answered() {
                    tracing::info!("the relay reaches the store again");
                }
                self.status.set("relay", Ok(()));
                self.metrics.shards.set(i64::try_from(view.shards.len()).unwrap_or(i64::MAX));
                self.machine.led(asked_at, &view);
            }
            Done::Led(_, Err(error)) => self.store_failed(Job::Lead, &error, now),
            Done::Brought(asks, limit, Ok(rows)) => self.machine.brought(&asks, limit, rows, now),
            Done::Brought(_, _, Err(error)) => self.store_failed(Job::Read, &error, now),
            Done::Acknowledged(published, Ok(agreed)) => self.store.removed(self.machine.acknowledged(&published, agreed)),
            Done::Acknowledged(_, Err(error)) => self.store_failed(Job::Acknowledge, &error, now),
            Done::Aside(aside, Ok(agreed)) => {
                if agreed {
                    self.alarms.set_aside(&aside);
                }
                self.machine.aside(&aside, agreed);
            }
            Done::Aside(_, Err(error)) => self.store_failed(Job::SetAside, &error, now),
            Done::Measured(Ok(stats)) => {
                *self.backlog.lock().expect("no holder of the statistics panics") = stats;
                self.metrics.measured(stats);
            }
            // Not reported: the leases show whether the store answers.
            Done::Measured(Err(_)) => {}
            Done::Vacuumed(outcome) => self.vacuumed(outcome),
        }
        self.raise_alarms();
    }

    fn vacuumed(&mut self, outcome: Result<bool, StoreError>) {
        match outcome {
            Ok(false) if !self.may_not_vacuum => {
                self.may_not_vacuum = true;
                tracing::warn!("this process may not VACUUM the outbox; its table grows until autovacuum runs");
                self.status.note("outbox", Some("may not VACUUM outbox_event: make this role its owner".to_owned()));
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(error = ?error, "cannot vacuum the outbox"),
        }
    }

    fn store_failed(&mut self, job: Job, error: &StoreError, now: Moment) {
        let (failures, wait) = self.store.failed();
        if failures == 1 {
            tracing::warn!(job = ?job, error = ?error, "the relay cannot reach the store; retrying");
        }
        self.status.set("relay", Err("the store does not answer".to_owned()));
        self.machine.store_failed(job, now + wait);
    }

    fn raise_alarms(&mut self) {
        let is_damaged = self.machine.is_damaged();
        self.alarms.raise(self.machine.alarms.drain(..), is_damaged);
    }

    async fn finish(mut self) {
        let end = Instant::now() + DRAIN;
        while let Ok(handed) = self.rows.try_recv() {
            self.take(handed);
        }
        // Rows that were handed over are sent, reported and stored; the table is not read for more.
        loop {
            let look_again = self.advance();
            if self.machine.is_idle() {
                break;
            }
            tokio::select! {
                Some(done) = self.store.next() => self.done(done),
                Some(report) = self.sender.reports.recv() => {
                    let now = self.now();
                    self.sender.report(report, &mut self.machine, now);
                }
                () = tokio::time::sleep_until(look_again.min(end)) => if Instant::now() >= end { break },
            }
        }
        match tokio::time::timeout(DRAIN, self.store.finish()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = ?error, "cannot give the leases back; they expire on their own"),
            Err(_) => tracing::warn!("the store does not answer; the leases expire on their own"),
        }
    }
}
