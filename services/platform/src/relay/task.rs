//! The relay's task: it sends rows, handles delivery reports and starts requests to the store. It never waits for store or
//! broker.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use minishop_bus::produce::{Compression, Producer, Report};
use minishop_store::{Operations, Outbox, OutboxRow, OutboxStats, Role, Store};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Relay;
use super::jobs::{Done, Upkeep};
use super::machine::Machine;
use super::metrics::RelayMetrics;
use super::send::TopicTrouble;
use super::shard::Moment;
use crate::ctx::{Metrics, Status};
use crate::hints::Hints;

/// How long a drain waits for reports, then for the store.
const DRAIN: Duration = Duration::from_secs(5);

/// The relay's settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The owner of this process's leases; unique per start.
    pub owner: String,
    /// The roles of this process.
    pub roles: Vec<Role>,
    /// Bootstrap servers.
    pub brokers: String,
    /// How batches are compressed.
    pub compression: Compression,
    /// Wakes relays that lead shards of rows written elsewhere.
    pub hints: Hints,
}

/// Runs the relay. Created with its [`Relay`] handle.
pub struct RelayTask {
    pub(super) outbox: Arc<dyn Outbox>,
    pub(super) operations: Operations,
    pub(super) settings: Settings,
    pub(super) status: Status,
    pub(super) rows: mpsc::UnboundedReceiver<Handed>,
    pub(super) reports: mpsc::UnboundedReceiver<Report>,
    pub(super) producer: Producer,
    pub(super) machine: Machine,
    pub(super) upkeep: Upkeep,
    pub(super) topic_trouble: TopicTrouble,
    /// Whether an `outbox_gap` alarm is raised.
    pub(super) damaged: bool,
    /// `Outbox::connections` when the shards were last verified.
    pub(super) connections: u64,
    pub(super) jobs: FuturesUnordered<BoxFuture<'static, Done>>,
    pub(super) stats: Arc<Mutex<OutboxStats>>,
    pub(super) metrics: RelayMetrics,
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
        f.debug_struct("RelayTask").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl RelayTask {
    /// Creates a relay and its handle. Call once per process: it registers metrics.
    pub fn new(store: &Store, settings: Settings, status: Status, metrics: &Metrics) -> anyhow::Result<(Relay, Self)> {
        let (hand_over, rows) = mpsc::unbounded_channel();
        let (report_to, reports) = mpsc::unbounded_channel();
        let backlog = Arc::new(Mutex::new(OutboxStats::default()));
        let producer = Producer::new(&settings.brokers, settings.compression, report_to)?;
        let relay = Relay { rows: hand_over, changes: settings.hints.changes().clone(), stats: backlog.clone() };
        let task = Self {
            outbox: store.outbox.clone(),
            operations: store.operations.clone(),
            settings,
            status,
            rows,
            reports,
            producer,
            machine: Machine::new(),
            upkeep: Upkeep::default(),
            topic_trouble: TopicTrouble::default(),
            damaged: false,
            connections: 0,
            jobs: FuturesUnordered::new(),
            stats: backlog,
            metrics: RelayMetrics::register(metrics),
            began: Instant::now(),
        };
        Ok((relay, task))
    }

    /// Sends until `drain` is cancelled; then waits up to 5 s for reports, stores what is published and gives the leases back.
    pub async fn run(mut self, drain: CancellationToken) -> anyhow::Result<()> {
        let (mut rows, mut reports) = (Vec::new(), Vec::new());
        loop {
            let now = self.now();
            self.start_jobs(now);
            self.send(now);
            let look_again = self.began + self.look_again(now);
            tokio::select! {
                biased;
                () = drain.cancelled() => break,
                Some(done) = self.jobs.next() => self.done(done, self.began.elapsed()),
                count = self.reports.recv_many(&mut reports, 1000) => if count == 0 { break },
                count = self.rows.recv_many(&mut rows, 100) => if count == 0 { break },
                () = self.settings.hints.heard() => self.machine.look(),
                () = tokio::time::sleep_until(look_again) => {}
            }
            // All reports at once: nothing may be sent behind a record that has failed.
            while let Ok(report) = self.reports.try_recv() {
                reports.push(report);
            }
            let now = self.now();
            for report in reports.drain(..) {
                if self.report(report, now) {
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

    fn take(&mut self, handed: Handed) {
        match handed {
            Handed::Rows(rows, answered_at) => {
                let connections = self.outbox.connections();
                if connections != self.connections {
                    self.connections = connections;
                    self.machine.verify(self.began.elapsed());
                }
                if self.machine.hand(rows, answered_at.saturating_duration_since(self.began)) {
                    // Wake their leader before its next read is due.
                    self.settings.hints.committed();
                }
            }
            Handed::Verify => {
                self.machine.verify(self.began.elapsed());
                self.settings.hints.committed();
            }
        }
        self.tell_alarms();
    }

    async fn finish(mut self) {
        let end = Instant::now() + DRAIN;
        while let Ok(handed) = self.rows.try_recv() {
            self.take(handed);
        }
        // Rows that were handed over are sent, reported and stored; the table is not read for more.
        loop {
            let now = self.now();
            self.start_jobs(now);
            self.send(now);
            if self.machine.is_idle() {
                break;
            }
            let look_again = self.began + self.look_again(now);
            tokio::select! {
                Some(done) = self.jobs.next() => self.done(done, self.began.elapsed()),
                Some(report) = self.reports.recv() => drop(self.report(report, self.began.elapsed())),
                () = tokio::time::sleep_until(look_again.min(end)) => if Instant::now() >= end { break },
            }
        }
        let ended = async {
            while self.jobs.next().await.is_some() {}
            self.outbox.release(&self.settings.owner).await
        };
        match tokio::time::timeout(DRAIN, ended).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = ?error, "cannot give the leases back; they expire on their own"),
            Err(_) => tracing::warn!("the store does not answer; the leases expire on their own"),
        }
    }
}
