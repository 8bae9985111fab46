//! The parking lot: claims due events, passes them to the handler, and writes the outcomes. Only claimed rows and
//! their leases belong here; what an event means is in `event`.
//!
//! `claimed_event` is a leased row, decoded; `call` is one call of the handler; `decide` makes the
//! `decision` about the event, with its `notes` for the timeline; `transaction` writes it; `lot_store` has the dependencies of both;
//! `sweep` decides when to look for missed rows; `report` and `metrics` inform operators.
//!
//! An attempt is counted before the handler runs, and its outcome is written under the lease of that attempt: a worker that dies,
//! or is slower than its lease, has used up an attempt and writes nothing more. While the store is unavailable no attempt is used
//! up: what was claimed is retried without limit.

mod call;
mod claimed_event;
mod decide;
mod decision;
mod lot_store;
mod metrics;
mod notes;
mod report;
mod sweep;
mod transaction;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use minishop_core::crash;
use minishop_platform::ctx::Ctx;
use minishop_store::{Lease, StoreError};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::handlers::Handler;
use crate::metrics::WorkerMetrics;
use crate::store_retry::StoreRetry;
use crate::worker_shared::WorkerShared;
use claimed_event::ClaimedEvent;
use lot_store::LotStore;
use sweep::Sweep;

/// The most rows per claim.
const AT_ONCE: usize = 32;
/// How much longer a lease is, at least, than a call may take: time for the writes before and after it.
const LEASE_BEYOND: Duration = Duration::from_secs(15);
/// How soon after the claim a call must start, so that it ends within its lease with time to write.
const CALL_WITHIN: Duration = Duration::from_secs(10);
/// The shortest and the longest pause between looks for rows that others made due without a wake-up.
const LOOK: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// How often the lot is counted, unless that would take more than a twentieth of the time.
const COUNT: Duration = Duration::from_secs(5);
const COUNT_SHARE: u32 = 20;
/// How long the drain waits for running calls.
const DRAIN: Duration = Duration::from_secs(5);

/// Runs the lot, or is stepped by hand.
pub struct LotTask {
    lot_store: LotStore,
    handler: Arc<dyn Handler>,
    /// Claimed, and not decided yet.
    claimed: Vec<ClaimedEvent>,
    /// The deadline for starting calls of the claimed rows, so that they end within their leases.
    call_until: Instant,
    /// Separate tasks: calls continue while this one waits for the store.
    calls: JoinSet<ClaimedEvent>,
    /// The leases of the running calls.
    running: HashMap<i64, Lease>,
    /// Handled, and not written yet.
    ended: Vec<ClaimedEvent>,
    look_at: Instant,
    look_every: Duration,
    sweep: Sweep,
    count_at: Instant,
    alarm_at: Instant,
}

impl std::fmt::Debug for LotTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LotTask").field("handler", &self.handler).field("running", &self.running).finish_non_exhaustive()
    }
}

impl LotTask {
    /// Creates the task; once per process, since it registers its metrics.
    pub fn new(ctx: &Ctx, metrics: WorkerMetrics, worker: WorkerShared) -> Self {
        let now = Instant::now();
        Self {
            handler: worker.place.handler(),
            lot_store: LotStore::new(ctx, metrics, worker),
            claimed: Vec::new(),
            call_until: now,
            calls: JoinSet::new(),
            running: HashMap::new(),
            ended: Vec::new(),
            look_at: now,
            look_every: LOOK.0,
            sweep: Sweep::new(now),
            count_at: now,
            alarm_at: now,
        }
    }

    /// Claims due rows and completes them; returns how many were claimed.
    pub async fn step(&mut self) -> Result<usize, StoreError> {
        self.write_ended().await?;
        let claimed = self.claim_and_call().await?;
        while let Some(ended) = self.calls.join_next().await {
            self.call_ended(ended);
            self.write_ended().await?;
        }
        Ok(claimed)
    }

    /// Makes missed rows due; returns how many.
    pub async fn make_due(&mut self) -> Result<u64, StoreError> {
        let (mut due, mut after) = (0, None);
        loop {
            let made = self.lot_store.make_due(after.as_ref()).await?;
            due += made.due;
            after = made.after;
            if after.is_none() {
                return Ok(due);
            }
        }
    }

    /// Runs until the drain, then waits for running calls (at most 5 s) and gives back the rest.
    pub async fn run(mut self, ctx: Ctx) -> anyhow::Result<()> {
        let (lot_waker, mut retry) = (self.lot_store.worker.lot_waker.clone(), StoreRetry::new(&ctx, "worker.lot"));
        while !ctx.drain.is_cancelled() {
            if let Err(error) = self.advance().await {
                retry.failed(error).await?;
                continue;
            }
            retry.succeeded();
            let has_room = self.room() > 0;
            tokio::select! {
                biased;
                () = ctx.drain.cancelled() => {}
                Some(ended) = self.calls.join_next() => self.call_ended(ended),
                () = lot_waker.woken(), if has_room => self.look_at = Instant::now(),
                () = tokio::time::sleep_until(self.look_at.min(self.sweep.at())), if has_room => {}
            }
        }
        self.finish().await;
        Ok(())
    }

    /// Writes outcomes, then sweeps, counts and claims, each if it is time.
    async fn advance(&mut self) -> Result<(), StoreError> {
        self.write_ended().await?;
        let now = Instant::now();
        if self.lot_store.worker.lot_waker.take_behind() {
            self.sweep.soon();
        }
        // Due rows are claimed before the next step of either, however slow this one is, and even if it fails.
        if now >= self.sweep.at() {
            let made = self.lot_store.make_due(self.sweep.after()).await;
            self.sweep.stepped(now, Instant::now(), made.as_ref().ok().and_then(|made| made.after.clone()));
            if made?.due > 0 {
                self.look_at = now;
            }
        }
        if now >= self.count_at {
            let began = Instant::now();
            let counted = self.lot_store.count(&mut self.alarm_at).await;
            self.count_at = Instant::now() + COUNT.max(began.elapsed() * COUNT_SHARE);
            counted?;
        }
        if self.room() > 0 && (now >= self.look_at || !self.claimed.is_empty()) {
            self.look_at = now + self.look().await?;
        }
        Ok(())
    }

    /// Claims due rows; returns the wait until the next look.
    async fn look(&mut self) -> Result<Duration, StoreError> {
        if let Some(pause) = self.handler.paused() {
            return Ok(pause.min(LOOK.1));
        }
        let due = self.lot_store.next_due().await?;
        if self.claimed.is_empty() && due.is_none_or(|wait| !wait.is_zero()) {
            self.look_every = LOOK.0;
            return Ok(due.map_or(LOOK.1, |wait| wait.clamp(LOOK.0, LOOK.1)));
        }
        if self.claim_and_call().await? > 0 {
            self.look_every = LOOK.0;
            return Ok(Duration::ZERO);
        }
        // Other workers claim them: look again, less and less often.
        self.look_every = (self.look_every * 2).min(LOOK.1);
        Ok(self.look_every)
    }

    fn room(&self) -> usize {
        self.handler.concurrency().max(1).saturating_sub(self.running.len()).min(AT_ONCE)
    }

    /// Claims rows and starts their calls; writes the outcomes of rows that need none.
    async fn claim_and_call(&mut self) -> Result<usize, StoreError> {
        if self.claimed.is_empty() {
            self.call_until = Instant::now() + CALL_WITHIN;
            self.claimed = self.lot_store.claim(self.handler.longest() + LEASE_BEYOND, self.room()).await?;
        }
        if self.claimed.is_empty() {
            return Ok(0);
        }
        crash::point("retry_after_count");
        let (count, events) = (self.claimed.len(), std::mem::take(&mut self.claimed));
        let calls = self.lot_store.decide_and_write(events).await.map_err(|(events, error)| {
            self.claimed = events;
            error
        })?;
        if Instant::now() > self.call_until {
            // The store was unavailable meanwhile. By the time a call ended, another worker could have started one.
            if let Err(error) = self.lot_store.give_back(calls.iter().map(|claimed| claimed.row.lease)).await {
                self.claimed = calls;
                return Err(error);
            }
            return Ok(count);
        }
        for claimed in calls {
            self.running.insert(claimed.row.lease.id, claimed.row.lease);
            self.calls.spawn(call::call(self.handler.clone(), self.lot_store.worker.versions.clone(), claimed));
        }
        Ok(count)
    }

    /// Notes an ended call, and others that have ended by now: they share a transaction.
    fn call_ended(&mut self, ended: Result<ClaimedEvent, JoinError>) {
        let others = std::iter::from_fn(|| self.calls.try_join_next());
        for ended in std::iter::once(ended).chain(others) {
            // A handler's panic is caught; any other panic ends the process, as in every task.
            let claimed = ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
            self.running.remove(&claimed.row.lease.id);
            self.lot_store.metrics.handled(&claimed);
            self.ended.push(claimed);
        }
        crash::point("retry_after_handler");
    }

    /// Writes the outcomes of ended calls.
    async fn write_ended(&mut self) -> Result<(), StoreError> {
        if self.ended.is_empty() {
            return Ok(());
        }
        let events = std::mem::take(&mut self.ended);
        let again = self.lot_store.decide_and_write(events).await.map_err(|(events, error)| {
            self.ended = events;
            error
        })?;
        debug_assert!(again.is_empty(), "what has ended is not called again");
        // The next rows of their keys are due.
        self.look_at = Instant::now();
        Ok(())
    }

    /// Waits for running calls, and gives back the rest: nobody has to wait for their leases, and no attempt is used up.
    async fn finish(mut self) {
        let end = Instant::now() + DRAIN;
        while let Ok(Some(ended)) = tokio::time::timeout_at(end, self.calls.join_next()).await {
            self.call_ended(ended);
        }
        // Calls are aborted before their rows are given back.
        self.calls.shutdown().await;
        if let Err(error) = self.write_ended().await {
            tracing::warn!(error = ?error, "cannot write the outcomes of handled events; they are handled again");
        }
        let leases = self.claimed.iter().map(|claimed| claimed.row.lease).chain(self.running.values().copied());
        if let Err(error) = self.lot_store.give_back(leases).await {
            tracing::warn!(error = ?error, "cannot give leases back; they expire on their own");
        }
    }
}
