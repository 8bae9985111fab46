//! The relay's one task: lease, read, send, report, delete.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use minishop_contracts::headers::kafka::DLQ_VALUE_OMITTED;
use minishop_contracts::topics;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Relay;
use super::shard::{Shard, State};
use crate::bus::Headers;
use crate::bus::produce::{Producer, Report, SendError, Token};
use crate::ctx::Status;
use crate::store::{Leadership, Outbox, OutboxRow, OutboxStats, Role, SHARDS_PER_ROLE};

/// How often leases are renewed. Short, because the view of being alone must be fresh.
const RENEW: Duration = Duration::from_secs(1);
/// How old the view of being alone may be when rows are sent from memory; a newcomer waits as long before it writes.
const ALONE_FOR: Duration = Duration::from_secs(2);
/// How long deletes are collected.
const COLLECT: Duration = Duration::from_millis(20);
/// Rows of one shard that are read at once, and the most that are kept in memory before the table is left to hold them.
pub(super) const READ: i64 = 1000;
const MOST_QUEUED: usize = 2_000;
/// Records that the producer may hold unreported; its own queue holds 10 000.
const MOST_IN_FLIGHT: usize = 8_000;

/// Whose rows are sent, and where to.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Names this process among the owners; unique per start.
    pub owner: String,
    /// The roles that this process plays.
    pub roles: Vec<Role>,
    /// Bootstrap servers.
    pub brokers: String,
}

/// Runs the relay. Made with its [`Relay`] handle.
pub struct RelayTask {
    pub(super) outbox: Arc<dyn Outbox>,
    pub(super) settings: Settings,
    pub(super) status: Status,
    pub(super) rows: mpsc::UnboundedReceiver<Vec<OutboxRow>>,
    pub(super) reports: mpsc::UnboundedReceiver<Report>,
    pub(super) report_to: mpsc::UnboundedSender<Report>,
    pub(super) producer: Producer,
    pub(super) shards: HashMap<i16, Shard>,
    pub(super) view: Leadership,
    pub(super) view_at: Option<Instant>,
    pub(super) led_since: Option<Instant>,
    pub(super) deletes: Vec<Token>,
    pub(super) in_flight: usize,
    pub(super) failures: u32,
    pub(super) retry_at: Instant,
    pub(super) poll_every: Duration,
    pub(super) stats: Arc<Mutex<OutboxStats>>,
    pub(super) settled: watch::Sender<bool>,
}

impl std::fmt::Debug for RelayTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelayTask").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl RelayTask {
    /// Makes a relay and its handle.
    pub fn new(outbox: Arc<dyn Outbox>, settings: Settings, status: Status) -> anyhow::Result<(Relay, Self)> {
        let (hand_over, rows) = mpsc::unbounded_channel();
        let (report_to, reports) = mpsc::unbounded_channel();
        let (may_write, when_settled) = watch::channel(false);
        let backlog = Arc::new(Mutex::new(OutboxStats::default()));
        let producer = Producer::new(&settings.brokers, report_to.clone())?;
        let relay = Relay { rows: hand_over, stats: backlog.clone(), settled: when_settled };
        let task = Self {
            outbox,
            settings,
            status,
            rows,
            reports,
            report_to,
            producer,
            shards: HashMap::new(),
            view: Leadership::default(),
            view_at: None,
            led_since: None,
            deletes: Vec::new(),
            in_flight: 0,
            failures: 0,
            retry_at: Instant::now(),
            poll_every: Duration::from_millis(10),
            stats: backlog,
            settled: may_write,
        };
        Ok((relay, task))
    }

    /// Sends until `drain` ends; then waits for reports (at most 5 s), deletes what was delivered and gives the leases back.
    pub async fn run(mut self, drain: CancellationToken) -> anyhow::Result<()> {
        let started = Instant::now();
        let mut renew_at = started;
        let mut poll_at = started;
        let mut sweep_at = started + Duration::from_secs(1);
        let mut flush_at = started;
        let (mut rows, mut reports) = (Vec::new(), Vec::new());
        loop {
            let now = Instant::now();
            if now >= renew_at && now >= self.retry_at {
                renew_at = now + RENEW;
                self.renew(now).await;
                self.settle_in();
            }
            if now >= self.retry_at {
                self.mend(now);
                self.load().await;
                if now >= poll_at {
                    poll_at = now + self.poll_every;
                    self.poll().await;
                }
                if now >= sweep_at {
                    sweep_at = now + Duration::from_secs(1);
                    self.sweep().await;
                }
                if now >= flush_at || self.deletes.len() >= 500 {
                    flush_at = now + COLLECT;
                    self.delete().await;
                }
            }
            self.send();
            tokio::select! {
                biased;
                () = drain.cancelled() => break,
                count = self.reports.recv_many(&mut reports, 1000) => if count == 0 { break },
                count = self.rows.recv_many(&mut rows, 100) => if count == 0 { break },
                () = tokio::time::sleep_until(flush_at.max(self.retry_at).min(renew_at.max(self.retry_at))) => {}
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

    fn take(&mut self, rows: Vec<OutboxRow>) {
        for row in rows {
            let shard = row.event.shard;
            if !self.may_skip_table(shard) {
                continue;
            }
            if let Some(led) = self.shards.get_mut(&shard) {
                if led.queue.len() >= MOST_QUEUED {
                    led.stop(Instant::now());
                } else if matches!(led.state, State::Load | State::Live) {
                    led.take([row]);
                }
            }
        }
    }

    /// Sends queued rows, shard by shard in order, as far as the producer has room.
    fn send(&mut self) {
        let now = Instant::now();
        let again = now + Duration::from_millis(200);
        let mut fatal = None;
        'shards: for (number, led) in &mut self.shards {
            if !matches!(led.state, State::Live | State::Behind) || now >= led.lease_until {
                continue;
            }
            while let Some(row) = led.queue.front() {
                if self.in_flight >= MOST_IN_FLIGHT {
                    break 'shards;
                }
                match send_row(&self.producer, row, led.too_large.contains(&row.id)) {
                    Ok(()) => {
                        led.queue.pop_front();
                        led.in_flight += 1;
                        self.in_flight += 1;
                    }
                    Err(SendError::QueueFull) => break 'shards,
                    Err(SendError::Fatal(reason)) => {
                        fatal = Some(reason);
                        break 'shards;
                    }
                    Err(SendError::TooLarge) if is_dead_letter(row) && led.too_large.insert(row.id) => {}
                    Err(SendError::TooLarge | SendError::Refused(_)) => {
                        tracing::warn!(
                            outbox.shard = *number,
                            outbox.id = row.id,
                            "a record was refused; its shard is read again"
                        );
                        led.stop(again);
                        break;
                    }
                }
            }
            if led.state == State::Behind && led.queue.is_empty() {
                led.state = State::Load;
            }
        }
        if let Some(reason) = fatal {
            self.renew_producer(&reason);
        }
    }

    /// Makes a new producer after a fatal error; everything that was not deleted is sent again from the table.
    fn renew_producer(&mut self, reason: &str) {
        tracing::error!(reason, "the producer failed for good; making a new one");
        // Reports of the old producer must not be counted against the new shards.
        let (report_to, reports) = mpsc::unbounded_channel();
        match Producer::new(&self.settings.brokers, report_to.clone()) {
            Ok(producer) => {
                self.producer = producer;
                self.report_to = report_to;
                self.reports = reports;
                self.in_flight = 0;
                let until: HashMap<i16, Instant> = self.shards.iter().map(|(shard, led)| (*shard, led.lease_until)).collect();
                self.shards = until.into_iter().map(|(shard, until)| (shard, Shard::won(until))).collect();
            }
            Err(error) => tracing::error!("cannot make a producer: {error:#}"),
        }
    }

    /// Takes up a report; tells whether it was the end of its producer.
    fn report(&mut self, report: Report) -> bool {
        let (number, id) = report.token;
        self.in_flight = self.in_flight.saturating_sub(1);
        let Some(led) = self.shards.get_mut(&number) else {
            // The shard was given back meanwhile; deleting a delivered row is right whoever does it.
            if report.result.is_ok() {
                self.deletes.push(report.token);
            }
            return false;
        };
        match report.result {
            Ok(()) => self.deletes.extend(led.delivered(id).map(|id| (number, id))),
            Err(error) => {
                tracing::warn!(outbox.shard = number, outbox.id = id, %error, "a record was not published; it is sent again");
                if error == SendError::TooLarge {
                    led.too_large.insert(id);
                }
                led.failed(id, Instant::now() + Duration::from_millis(200));
                if let SendError::Fatal(reason) = error {
                    self.renew_producer(&reason);
                    return true;
                }
            }
        }
        false
    }

    fn mend(&mut self, now: Instant) {
        for (number, led) in &mut self.shards {
            if let Some(done) = led.mend(now) {
                self.deletes.extend(done.into_iter().map(|id| (*number, id)));
            }
        }
    }

    async fn finish(mut self) {
        let end = Instant::now() + Duration::from_secs(5);
        while let Ok(batch) = self.rows.try_recv() {
            self.take(batch);
        }
        loop {
            self.send();
            if self.in_flight == 0 {
                break;
            }
            match tokio::time::timeout_at(end, self.reports.recv()).await {
                Ok(Some(report)) => self.report(report),
                _ => break,
            };
        }
        self.delete().await;
        if let Err(error) = self.outbox.release(&self.settings.owner).await {
            tracing::warn!(error = ?error, "could not give the leases back; they run out by themselves");
        }
    }
}

fn is_dead_letter(row: &OutboxRow) -> bool {
    row.event.topic.ends_with(topics::CREATED_DEAD_LETTERS)
}

/// Queues a row with the producer; a dead letter that the broker refused for its size goes without its value, which stays in the
/// store.
fn send_row(producer: &Producer, row: &OutboxRow, too_large: bool) -> Result<(), SendError> {
    let mut headers = Headers::decode(row.event.headers.clone()).unwrap_or_default();
    let mut value = row.event.payload.as_ref();
    if too_large && is_dead_letter(row) {
        let bytes = value.take().map_or(0, bytes::Bytes::len);
        headers = headers.with(DLQ_VALUE_OMITTED, bytes.to_string());
    }
    producer.send((row.event.shard, row.id), &row.event.topic, &row.event.record_key, value, &headers)
}
