//! The relay's one task: it sends, takes reports, and starts the store's jobs. It never waits for the store or the broker.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Relay;
use super::jobs::{Agenda, Done};
use super::metrics::RelayMetrics;
use super::shard::{Shard, State};
use crate::bus::produce::{Compression, Producer, Report, Token};
use crate::ctx::{Metrics, Status};
use crate::hints::Hints;
use crate::store::{Leadership, Outbox, OutboxRow, OutboxStats, Role};

/// The most rows of a shard that are kept in memory before the table is left to hold them.
const MOST_QUEUED: usize = 2_000;
/// How long a drain waits for reports.
const DRAIN: Duration = Duration::from_secs(5);

/// Whose rows are sent, and where to.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Names this process among the owners; unique per start.
    pub owner: String,
    /// The roles that this process plays.
    pub roles: Vec<Role>,
    /// Bootstrap servers.
    pub brokers: String,
    /// How batches are compressed.
    pub compression: Compression,
    /// Wakes relays that lead shards of rows written elsewhere.
    pub hints: Hints,
}

/// Runs the relay. Made with its [`Relay`] handle.
pub struct RelayTask {
    pub(super) outbox: Arc<dyn Outbox>,
    pub(super) settings: Settings,
    pub(super) status: Status,
    pub(super) rows: mpsc::UnboundedReceiver<Vec<OutboxRow>>,
    pub(super) reports: mpsc::UnboundedReceiver<Report>,
    pub(super) producer: Producer,
    pub(super) shards: HashMap<i16, Shard>,
    /// Records that the producer has and has not reported.
    pub(super) in_flight: usize,
    pub(super) view: Leadership,
    pub(super) view_at: Option<Instant>,
    pub(super) led_since: Option<Instant>,
    /// Delivered rows that still stand in the table.
    pub(super) deletes: Vec<Token>,
    pub(super) jobs: FuturesUnordered<BoxFuture<'static, Done>>,
    pub(super) agenda: Agenda,
    pub(super) stats: Arc<Mutex<OutboxStats>>,
    pub(super) settled: watch::Sender<bool>,
    pub(super) metrics: RelayMetrics,
}

impl std::fmt::Debug for RelayTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelayTask").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl RelayTask {
    /// Makes a relay and its handle; once a process, since it registers its metrics.
    pub fn new(outbox: Arc<dyn Outbox>, settings: Settings, status: Status, metrics: &Metrics) -> anyhow::Result<(Relay, Self)> {
        let (hand_over, rows) = mpsc::unbounded_channel();
        let (report_to, reports) = mpsc::unbounded_channel();
        let (may_write, when_settled) = watch::channel(false);
        let backlog = Arc::new(Mutex::new(OutboxStats::default()));
        let producer = Producer::new(&settings.brokers, settings.compression, report_to)?;
        let relay =
            Relay { rows: hand_over, changes: settings.hints.changes().clone(), stats: backlog.clone(), settled: when_settled };
        let task = Self {
            outbox,
            settings,
            status,
            rows,
            reports,
            producer,
            shards: HashMap::new(),
            in_flight: 0,
            view: Leadership::default(),
            view_at: None,
            led_since: None,
            deletes: Vec::new(),
            jobs: FuturesUnordered::new(),
            agenda: Agenda::new(Instant::now()),
            stats: backlog,
            settled: may_write,
            metrics: RelayMetrics::register(metrics),
        };
        Ok((relay, task))
    }

    /// Sends until `drain` ends; then waits for reports (at most 5 s), deletes what was delivered and gives the leases back.
    pub async fn run(mut self, drain: CancellationToken) -> anyhow::Result<()> {
        let (mut rows, mut reports) = (Vec::new(), Vec::new());
        loop {
            let now = Instant::now();
            self.start_jobs(now);
            self.send(now);
            let look_again = self.look_again(now);
            tokio::select! {
                biased;
                () = drain.cancelled() => break,
                Some(done) = self.jobs.next() => self.done(done),
                count = self.reports.recv_many(&mut reports, 1000) => if count == 0 { break },
                count = self.rows.recv_many(&mut rows, 100) => if count == 0 { break },
                () = self.settings.hints.heard() => self.poll_soon(),
                () = tokio::time::sleep_until(look_again) => {}
            }
            for report in reports.drain(..) {
                if self.report(report) {
                    // The rest are reports of the producer that is gone.
                    break;
                }
            }
            for batch in rows.drain(..) {
                self.take(batch);
            }
        }
        self.finish().await;
        Ok(())
    }

    fn take(&mut self, rows: Vec<OutboxRow>) {
        let mut in_table = false;
        for row in rows {
            let shard = row.event.shard;
            if !self.may_skip_table(shard) {
                in_table = true;
                continue;
            }
            let Some(led) = self.shards.get_mut(&shard) else { continue };
            match led.state {
                State::Load | State::Loading | State::Live if led.queue.len() < MOST_QUEUED => drop(led.take([row])),
                // The broker is slow or away: from here on the table holds the rows, and is read when these are sent.
                State::Live => led.state = State::Behind,
                // What is being read comes before these rows, and they must not be missed: read it with them.
                State::Load | State::Loading => {
                    led.drop_queue();
                    led.read_first();
                }
                State::Behind | State::Broken(_) => {}
            }
        }
        if in_table {
            // Their leader, here or elsewhere, need not wait for its next poll.
            self.poll_soon();
            self.settings.hints.committed();
        }
    }

    async fn finish(mut self) {
        let end = Instant::now() + DRAIN;
        while let Ok(batch) = self.rows.try_recv() {
            self.take(batch);
        }
        loop {
            self.send(Instant::now());
            if self.in_flight == 0 && self.jobs.is_empty() {
                break;
            }
            tokio::select! {
                Some(done) = self.jobs.next() => self.done(done),
                Some(report) = self.reports.recv() => drop(self.report(report)),
                () = tokio::time::sleep_until(end) => break,
            }
        }
        if let Err(error) = self.outbox.delete(&self.deletes).await {
            tracing::warn!(rows = self.deletes.len(), error = ?error, "could not delete what was sent; it will be sent again");
        }
        if let Err(error) = self.outbox.release(&self.settings.owner).await {
            tracing::warn!(error = ?error, "could not give the leases back; they run out by themselves");
        }
    }
}
