//! Runs the operations that operators start over dead letters: leases them, and advances each one step at a time.
//!
//! An operation's state follows from its rows, so a worker that takes it over continues where the last one stopped. A redrive
//! makes dead letters due again and watches their outcomes; the lot handles them.

mod pace;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use minishop_core::clock::{Clock, Timestamp};
use minishop_core::crash;
use minishop_core::ids::{Ids, OperationId};
use minishop_core::operation::{Kind, Next, State};
use minishop_core::order::Status;
use minishop_platform::ctx::{Commits, Ctx, Labels};
use minishop_platform::events::status_changed::{Cause, StatusChange, StatusEvents};
use minishop_platform::telemetry::propagation::TraceContext;
use minishop_store::{DiscardCandidate, Operation, Operations, OrderRow, OutboxRow, Role, Run, StoreError, Transition};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use crate::store_retry::StoreRetry;
use crate::worker_shared::WorkerShared;
use pace::Pace;

/// How long an operation stays leased without another step.
const LEASE: Duration = Duration::from_secs(10);
/// The most operations that one worker advances at a time.
const RUNS: i64 = 32;
/// The most dead letters per step: a redrive takes them in one transaction, a discard in one each.
const MOST: usize = 500;
/// The pause after a step that advanced an operation; it doubles while operations only wait, up to `IDLE`, the pause while there
/// are none.
const STEP: Duration = Duration::from_millis(100);
const IDLE: Duration = Duration::from_secs(1);

/// The result of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// This worker has no operation.
    Idle,
    /// All operations wait: for their rate, for what they released, or for an operator.
    Waiting,
    /// At least one operation advanced.
    Moved,
}

/// Runs operations.
#[derive(Debug)]
pub struct OperationsTask {
    operations: Operations,
    commits: Commits,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    settled: StatusEvents,
    worker: WorkerShared,
    owner: String,
    paces: HashMap<OperationId, Pace>,
    moved: Family<Labels<1>, Counter>,
}

impl OperationsTask {
    /// Creates a runner with a unique owner name for its leases, and registers its metrics.
    pub fn new(ctx: &Ctx, worker: WorkerShared) -> Self {
        Self {
            operations: ctx.store.operations.clone(),
            commits: ctx.commits(),
            clock: ctx.clock.clone(),
            ids: ctx.ids.clone(),
            settled: StatusEvents::new(&ctx.config, Role::Worker),
            worker,
            owner: OperationId::new(ctx.clock.now(), ctx.ids.random()).to_string(),
            paces: HashMap::new(),
            moved: ctx
                .metrics
                .register("worker_operation_items", "Dead letters that operations have released for a redrive or discarded"),
        }
    }

    /// Advances every operation that this worker can lease by one step.
    pub async fn step(&mut self) -> Result<Progress, StoreError> {
        let runs = self.operations.claim(&self.owner, LEASE, RUNS).await?;
        self.paces.retain(|id, _| runs.iter().any(|run| run.operation.id == *id));
        if runs.is_empty() {
            return Ok(Progress::Idle);
        }
        let (mut progress, mut failed) = (Progress::Waiting, None);
        for run in &runs {
            match self.advance(run).await {
                Ok(true) => progress = Progress::Moved,
                Ok(false) => {}
                Err(error) if error.is_sync_failure() => return Err(error),
                // An operation that fails does not hold up the others.
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(progress), Err)
    }

    /// Advances one operation; returns whether anything changed.
    async fn advance(&mut self, run: &Run) -> Result<bool, StoreError> {
        let Some(now) = self.operations.decide(run).await? else { return Ok(false) };
        let decided = now.tally != run.operation.tally;
        let Operation { id, kind, state, failure_ratio, tally, .. } = now;
        let at = self.clock.now();
        let moved = match (state, tally.next(kind, failure_ratio)) {
            (State::Stopped, _) if tally.released == 0 => self.operations.end(run, &tally, at).await?,
            (State::Stopped | State::Paused | State::Done, _) | (State::Running, Next::Wait) => false,
            (State::Running, Next::Finish) => {
                tracing::info!(operation.id = %id, ?tally, "an operation is done");
                self.operations.end(run, &tally, at).await?
            }
            (State::Running, Next::Stop) => {
                let because = format!("{} of {} failed", tally.failed, tally.failed + tally.succeeded);
                tracing::warn!(operation.id = %id, ?tally, "an operation is stopped: {because}");
                self.operations.stop(run, &because, at).await?
            }
            (State::Running, Next::Take(most)) => self.take(run, most, at).await? > 0,
        };
        Ok(decided || moved)
    }

    /// Releases or discards as many dead letters as the ramp and the rate allow.
    async fn take(&mut self, run: &Run, most: usize, at: Timestamp) -> Result<usize, StoreError> {
        let Operation { id, kind, rate, .. } = run.operation;
        let pace = self.paces.entry(id).or_insert_with(|| Pace::new(rate, at));
        let most = most.min(pace.allowed(at)).min(MOST);
        if most == 0 {
            return Ok(0);
        }
        let took = match kind {
            Kind::Redrive => self.release(run, most, at).await?,
            Kind::Discard => self.discard(run, most, at).await?,
        };
        if let Some(pace) = self.paces.get_mut(&id) {
            pace.took(took);
        }
        self.moved.get_or_create(&[("kind", kind.as_str())]).inc_by(took as u64);
        Ok(took)
    }

    /// Makes dead letters due again, and wakes the lot.
    async fn release(&self, run: &Run, most: usize, at: Timestamp) -> Result<usize, StoreError> {
        let released = self.operations.release(run, most, at).await?.unwrap_or(0);
        crash::point("redrive_after_release_before_audit");
        self.worker.lot_waker.wake();
        Ok(released)
    }

    /// Discards dead letters, one transaction each.
    async fn discard(&self, run: &Run, most: usize, at: Timestamp) -> Result<usize, StoreError> {
        let mut done = 0;
        for candidate in self.operations.discard_candidates(run, most).await? {
            let transition = self.failed(run, &candidate, at);
            let discarded = self.operations.discard(run, &candidate, transition.as_ref(), at).await;
            let Some(number) = discarded.inspect_err(|error| self.commits.doubt(error))? else { break };
            done += 1;
            let row = number.zip(transition).map(|(number, transition)| OutboxRow::new(number, transition.event));
            self.commits.report(row.into_iter().collect());
            self.worker.lot_waker.wake();
        }
        Ok(done)
    }

    /// Builds the transition to `failed` of the order that the event announced. A refused copy changes no order, whatever it
    /// names.
    fn failed(&self, run: &Run, candidate: &DiscardCandidate, at: Timestamp) -> Option<Transition> {
        let origin = candidate.order.as_ref().filter(|origin| candidate.announced && origin.order.status == Status::Created)?;
        let OrderRow { head, version, .. } = &origin.order;
        let change = StatusChange { order: head, version: *version, to: Status::Failed };
        let trace = origin.traceparent.as_deref().and_then(|parent| TraceContext::parse(parent, None));
        let trace = trace.unwrap_or_else(|| TraceContext::new(self.ids.as_ref()));
        let cause = Cause {
            event_id: candidate.event_id,
            occurred_at: head.created_at,
            causation_id: run.operation.requested_by.correlation_id.as_str(),
            trace: &trace,
        };
        Some(self.settled.change(change, &cause, at))
    }
}

/// Runs operations until the drain.
pub async fn run(ctx: Ctx, worker: WorkerShared) -> anyhow::Result<()> {
    let mut task = OperationsTask::new(&ctx, worker);
    let (mut retry, mut wait) = (StoreRetry::new(&ctx, "worker.operations"), STEP);
    while !ctx.drain.is_cancelled() {
        let progress = match task.step().await {
            Ok(progress) => progress,
            Err(error) => {
                retry.failed(error).await?;
                continue;
            }
        };
        retry.succeeded();
        wait = if progress == Progress::Waiting { (wait * 2).min(IDLE) } else { STEP };
        let pause = if progress == Progress::Idle { IDLE } else { wait };
        let _ = tokio::time::timeout(pause, ctx.drain.cancelled()).await;
    }
    // Lets another worker take over before the lease runs out; if this fails, that worker waits.
    let _ = task.operations.give_back(&task.owner).await;
    Ok(())
}
