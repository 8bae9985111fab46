//! The poll thread: reads, pauses, checks what it is assigned, commits what is settled.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use minishop_bus::consume::{Consumer, ConsumerSettings, Handlers, Partition, PollError};
use minishop_contracts::topics;
use minishop_core::backoff::Backoff;
use minishop_core::crash;
use minishop_core::ids::CorrelationId;
use minishop_core::position::Position;
use minishop_platform::ctx::Ctx;
use tokio::runtime::Handle;

use super::resume_point::ResumePoint;
use super::shared::Shared;
use super::sight::Sight;
use super::unreadable::Watch;
use crate::metrics::WorkerMetrics;

/// Records read per round, between the thread's other duties.
const AT_ONCE: usize = 512;
/// How long a rebalance, and the drain, wait for the running transaction.
const REBALANCE_WAIT: Duration = Duration::from_secs(3);
const DRAIN_WAIT: Duration = Duration::from_secs(5);
/// How long leaving the group may take.
const LEAVE_WAIT: Duration = Duration::from_secs(3);
/// How long the thread waits for room in the queue before it pauses the partitions; this delays a rebalance as much.
const WAIT_FOR_ROOM: Duration = Duration::from_millis(500);
/// How long the thread waits for the next record. While the partitions are paused none comes, and the queue is checked for room.
const POLL: Duration = Duration::from_millis(100);
const POLL_PAUSED: Duration = Duration::from_millis(10);
/// How often settled offsets are committed.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// How long the store and the group may take to return offsets, and a partition's leader its range.
const ANSWER: Duration = Duration::from_secs(3);
const ANSWER_OF_LEADER: Duration = Duration::from_secs(1);
/// The pauses between checks while an answer is missing: a check blocks the thread.
const CHECK_AGAIN: Backoff = Backoff { base: Duration::from_millis(200), factor: 2, cap: Duration::from_secs(10) };
/// How often read failures are logged.
const COMPLAIN_EVERY: Duration = Duration::from_secs(30);

/// Polls until the drain, then leaves the group.
pub fn run(
    ctx: &Ctx,
    shared: &Arc<Shared>,
    metrics: &WorkerMetrics,
    runtime: &Handle,
    standstill: Duration,
) -> anyhow::Result<()> {
    let settings = ConsumerSettings {
        brokers: ctx.brokers.clone(),
        group: ctx.config.kafka_group.clone(),
        topics: vec![topics::prefixed(&ctx.config.topic_prefix, topics::CREATED)],
        session_timeout: ctx.config.kafka_session_timeout,
        instance_id: ctx.config.kafka_instance_id.clone(),
        client_id: format!("minishop-worker-{}", CorrelationId::new(ctx.clock.now(), ctx.ids.random())),
        // A standstill is seen in several of them.
        statistics_every: standstill / 3,
    };
    let consumer = Consumer::join(&settings, handlers(shared, metrics))?;
    let (sight, watch) = (Sight::new(standstill), Watch::default());
    let mut poller = Poller { ctx, shared, metrics, runtime, consumer, paused: false, sight, watch, complained_at: None };
    let (mut committed_at, mut check_at, mut checks) = (Instant::now(), Instant::now(), 0);
    while !ctx.drain.is_cancelled() {
        shared.beat();
        poller.read()?;
        if Instant::now() >= check_at {
            checks = if poller.check() { 0 } else { checks + 1 };
            check_at = Instant::now() + if checks > 0 { CHECK_AGAIN.ceiling(checks) } else { Duration::ZERO };
        }
        if committed_at.elapsed() >= COMMIT_EVERY {
            committed_at = Instant::now();
            poller.commit();
        }
        poller.watch();
    }
    poller.leave();
    Ok(())
}

fn handlers(shared: &Arc<Shared>, metrics: &WorkerMetrics) -> Handlers {
    let (assigned, revoked, lost) = (shared.clone(), shared.clone(), shared.clone());
    let (of_revoked, of_lost) = (metrics.clone(), metrics.clone());
    Handlers {
        assigned: Box::new(move |partitions| assigned.lock().add(partitions)),
        revoked: Box::new(move |partitions| {
            // Queued records are dropped; the running transaction is awaited, and what it settles is committed.
            revoked.lock().stop_processing(partitions);
            revoked.wait_idle(Some(partitions), REBALANCE_WAIT);
            let mut state = revoked.lock();
            let settled = state.due(Some(partitions));
            state.forget(partitions);
            of_revoked.gone(partitions);
            settled
        }),
        lost: Box::new(move |partitions| {
            tracing::warn!(partition.count = partitions.len(), "partitions were lost; another member reads them");
            lost.lock().forget(partitions);
            of_lost.gone(partitions);
        }),
    }
}

pub(super) struct Poller<'c> {
    pub(super) ctx: &'c Ctx,
    pub(super) shared: &'c Shared,
    pub(super) metrics: &'c WorkerMetrics,
    pub(super) runtime: &'c Handle,
    pub(super) consumer: Consumer,
    pub(super) paused: bool,
    /// Detects unreadable records.
    pub(super) sight: Sight,
    pub(super) watch: Watch,
    complained_at: Option<Instant>,
}

impl Poller<'_> {
    /// Queues fetched records; pauses and resumes the partitions as the queue fills and empties.
    fn read(&mut self) -> anyhow::Result<()> {
        self.collect()?;
        let (full, half_empty, news) = {
            let mut state = self.shared.lock();
            (state.is_full(), state.is_half_empty(), state.take_news())
        };
        // Pausing costs more than a short wait: the client discards what it has prefetched.
        let paused = if self.paused { !half_empty } else { full && !self.shared.wait_for_room(WAIT_FOR_ROOM) };
        // The client remembers a pause across a revocation: newly assigned partitions need the current state.
        if paused != self.paused || news {
            if paused { self.consumer.pause() } else { self.consumer.resume() }
                .context("cannot pause or resume the partitions")?;
            self.set_paused(paused);
        }
        Ok(())
    }

    fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
        self.metrics.paused.set(i64::from(paused));
    }

    /// Queues at most [`AT_ONCE`] records.
    fn collect(&mut self) -> anyhow::Result<()> {
        let mut received = 0;
        let mut wait = if self.paused { POLL_PAUSED } else { POLL };
        while received < AT_ONCE {
            match self.consumer.poll(wait) {
                Ok(Some(record)) => {
                    if self.admits(&record) {
                        self.shared.lock().push(record);
                    }
                    received += 1;
                }
                Ok(None) => break,
                // The error names no partition: `sight` infers it from what each of them delivers.
                Err(PollError::Unreadable(error)) => self.sight.complained(error.to_string(), Instant::now()),
                Err(PollError::Passing(error)) => {
                    if self.complained_at.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
                        tracing::warn!(error = format!("{error:#}"), "cannot read the event log; retrying");
                        self.complained_at = Some(Instant::now());
                    }
                    break;
                }
                // The partitions are lost; the client reports that next.
                Err(PollError::Exceeded) => {
                    tracing::warn!("the consumer was not polled in time; the group reassigns its partitions");
                    break;
                }
                Err(PollError::Replaced) => {
                    let name = self.ctx.config.kafka_instance_id.as_deref().unwrap_or_default();
                    anyhow::bail!(
                        "another worker was started under the name `{name}` (MINISHOP_KAFKA_INSTANCE_ID) and has replaced this one"
                    );
                }
                Err(PollError::Fatal(error)) => return Err(error.context("the consumer failed permanently")),
            }
            wait = Duration::ZERO;
        }
        if received > 0 {
            self.shared.wake();
        }
        Ok(())
    }

    /// Determines where unchecked partitions must be read from; returns whether all are checked now.
    fn check(&mut self) -> bool {
        let partitions = self.shared.lock().unchecked();
        if partitions.is_empty() {
            return true;
        }
        if let Err(error) = self.check_all(&partitions) {
            tracing::debug!(error = format!("{error:#}"), "cannot determine the position of some partitions; retrying");
        }
        // Records of partitions that are checked now may be processed.
        self.shared.wake();
        self.shared.lock().unchecked().is_empty()
    }

    fn check_all(&mut self, partitions: &[Partition]) -> anyhow::Result<()> {
        let stored = self.ctx.store.reads.positions(&self.ctx.config.kafka_group);
        let stored = self.runtime.block_on(async { tokio::time::timeout(ANSWER, stored).await })??;
        let committed = self.consumer.committed(partitions, ANSWER)?;
        let of = |list: &[Position], p: &Partition| {
            list.iter().find(|at| at.partition == p.partition && *at.topic == *p.topic).map(|at| at.next_offset)
        };
        // A partition without a leader must not delay the others, nor many of them the thread.
        let (started, mut outcome) = (Instant::now(), Ok(()));
        for partition in partitions.iter().take_while(|_| started.elapsed() < ANSWER) {
            let (read, seen) = self.shared.lock().known(partition);
            let (committed, stored) = (of(&committed, partition).max(read), of(&stored, partition));
            let range = self.consumer.range(partition, ANSWER_OF_LEADER);
            let followed =
                range.and_then(|(first, end)| self.follow(partition, ResumePoint { committed, stored, seen, first, end }));
            outcome = outcome.and(followed);
        }
        outcome
    }

    /// Seeks if needed, marks the partition as checked, and reports an older store and lost records.
    fn follow(&mut self, partition: &Partition, resume_point: ResumePoint) -> anyhow::Result<()> {
        let found = resume_point.judge();
        if found.store_is_behind {
            let to =
                Position { topic: partition.topic.to_string(), partition: partition.partition, next_offset: found.next_offset };
            self.consumer.seek(&to, ANSWER)?;
            tracing::error!(
                topic = &*partition.topic,
                partition = partition.partition,
                group.offset = resume_point.committed,
                store.offset = resume_point.stored,
                read.offset = found.next_offset,
                "the store is behind the committed offset, as after a restore or a fail-over to an older copy; reading the \
                 partition again from the store's offset"
            );
            self.metrics.store_behind_group.inc();
            self.sight.begins(partition, found.next_offset);
            self.shared.lock().restart_at(partition, found.next_offset, resume_point.stored);
        } else if self.sight.was_to_begin(partition, found.next_offset, Instant::now()) {
            self.read_from(partition, found.next_offset);
            self.shared.lock().restart_at(partition, found.next_offset, resume_point.stored);
        } else {
            self.shared.lock().checked(partition, found.next_offset, resume_point.stored);
        }
        if found.lost > 0 {
            tracing::error!(
                topic = &*partition.topic,
                partition = partition.partition,
                lost.from = resume_point.first - found.lost,
                lost.until = resume_point.first,
                "retention deleted records before they were read; orders that they announced stay open"
            );
            self.metrics.lost_to_retention.inc_by(u64::try_from(found.lost).unwrap_or_default());
        }
        Ok(())
    }

    /// Commits settled offsets without waiting, and updates the lag metric.
    fn commit(&self) {
        let mut state = self.shared.lock();
        if self.consumer.commit_failed() {
            state.commit_failed();
        }
        let due = state.due(None);
        if !due.is_empty() {
            match self.consumer.commit(&due) {
                Ok(()) => {
                    state.committed();
                    crash::point("after_offset");
                }
                // The next commit makes it good, and the inbox absorbs records that are read again.
                Err(error) => tracing::debug!(error = format!("{error:#}"), "an offset commit failed; the next one covers it"),
            }
        }
        let offsets = state.offsets();
        drop(state);
        let (_, reaches) = self.consumer.reaches();
        for (partition, offset) in offsets {
            let reach = reaches.get(&(partition.topic.to_string(), partition.partition));
            if let Some(reach) = reach.filter(|reach| reach.end >= 0) {
                self.metrics.lag(&partition, (reach.end - offset).max(0));
            }
        }
    }

    /// Waits for the running transaction, commits settled offsets and leaves the group; queued records are read again.
    fn leave(self) {
        self.shared.lock().close();
        self.shared.wait_idle(None, DRAIN_WAIT);
        let due = self.shared.lock().due(None);
        if !due.is_empty() {
            match self.consumer.commit_and_wait(&due) {
                Ok(()) => self.shared.lock().committed(),
                Err(error) => tracing::info!(
                    error = format!("{error:#}"),
                    "cannot commit the last offsets; their events are read again without effect"
                ),
            }
        }
        // Leaving calls the handlers, which find nothing left to do.
        if !self.consumer.leave(LEAVE_WAIT) {
            tracing::info!("cannot leave the group; it removes this member when its session expires");
        }
    }
}
