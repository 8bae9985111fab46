//! Reads `orders.created` and settles each record once: the poll thread, its queue to the processor, one transaction a batch, and
//! the offsets. Events that wait for a retry, a newer worker or an operator are parked here and handled in `lot`.
//!
//! Reading: `poll` (the thread), `resume_point` (where to read from), `sight` and `unreadable` (records that cannot be read),
//! `assignment` and `shared` (the queue between the two tasks). Settling: `announced` (the common batch, in one statement), `batch`
//! (any other, step by step in one transaction), `plan` (the decision on each record), `rows`, `reinjected` (dead letters that
//! come again), `gap` (skipped records), `report` (logs and metrics).
//!
//! The thread never blocks long on the processor: while the queue is full it pauses the partitions and keeps polling, so that it
//! stays in the group. An offset is committed only after the transaction that settled it.

mod announced;
mod assignment;
mod batch;
mod gap;
mod plan;
mod poll;
mod reinjected;
mod report;
mod resume_point;
mod rows;
mod shared;
mod sight;
mod unreadable;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use minishop_core::crash;
use minishop_platform::ctx::{Ctx, Task};
use minishop_store::{StoreError, Why};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;

use crate::metrics::WorkerMetrics;
use crate::store_retry::StoreRetry;
use crate::worker_shared::WorkerShared;
use assignment::Work;
pub use batch::Processor;
use shared::Shared;

/// The most records per transaction; halved after each failure in a row, so that a slow store makes progress.
const BATCH: usize = 512;
/// A thread that has not polled for this long hangs, and the group revokes its partitions sooner or later.
const LONGEST_SILENCE: Duration = Duration::from_mins(1);
/// How long the drain waits for the poll thread: running transaction, last commit, leaving the group.
const DRAIN: Duration = Duration::from_secs(15);
/// How often idle partitions are checked for a store that has gone back.
const LOOK_BACK_EVERY: Duration = Duration::from_secs(5);
/// Failures in a row after which the process is not ready; fewer are a deadlock or a hiccup.
const NOT_READY_AFTER: u32 = 3;

/// Builds the two tasks: one polls, on its own thread; the other processes.
pub fn tasks(ctx: Ctx, metrics: WorkerMetrics, worker: WorkerShared) -> Vec<Task> {
    let shared = Arc::new(Shared::new());
    let poll = Task::new("worker.poll", polling(ctx.clone(), shared.clone(), metrics.clone(), worker.standstill));
    let process = Task::new("worker.process", processing(ctx, shared, metrics, worker));
    vec![poll, process]
}

/// Starts the poll thread and watches it. It is not a thread of the runtime: a hung one must not keep the process alive.
async fn polling(ctx: Ctx, shared: Arc<Shared>, metrics: WorkerMetrics, standstill: Duration) -> anyhow::Result<()> {
    let (ended, mut end) = oneshot::channel();
    let (runtime, drain) = (Handle::current(), ctx.drain.clone());
    let thread = {
        let shared = shared.clone();
        move || {
            let outcome = poll::run(&ctx, &shared, &metrics, &runtime, standstill);
            // The receiver is gone if the drain took too long.
            let _ = ended.send(outcome);
        }
    };
    std::thread::Builder::new().name("worker-poll".to_owned()).spawn(thread).context("cannot start the poll thread")?;
    tokio::select! {
        outcome = &mut end => return outcome.context("the poll thread panicked")?,
        () = drain.cancelled() => {}
        () = shared.silence(LONGEST_SILENCE) => anyhow::bail!("the event log has not been polled for {LONGEST_SILENCE:?}"),
    }
    if let Ok(outcome) = tokio::time::timeout(DRAIN, end).await {
        return outcome.context("the poll thread panicked")?;
    }
    // Settled events stay settled; the group notices by itself that this member is gone.
    tracing::warn!("cannot leave the group in time; it removes this member when its session expires");
    Ok(())
}

/// Processes batches until the drain.
async fn processing(ctx: Ctx, shared: Arc<Shared>, metrics: WorkerMetrics, worker: WorkerShared) -> anyhow::Result<()> {
    let processor = Processor::new(&ctx, metrics, worker);
    ctx.status.set("worker", Ok(()));
    let mut retry = StoreRetry::new(&ctx, "worker.process");
    let mut look_back = tokio::time::interval(LOOK_BACK_EVERY);
    look_back.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let most = (BATCH >> retry.failures().min(6)).max(1);
        let (work, seen) = tokio::select! {
            biased;
            () = ctx.drain.cancelled() => return Ok(()),
            _ = look_back.tick() => {
                looked_back(&ctx, &shared).await;
                continue;
            }
            next = shared.next(most) => next,
        };
        let outcome = match &work {
            Work::Batch(batch) => processor.step(batch, &seen).await,
            Work::Gap(gap) => processor.step_over(gap, &seen).await,
        };
        match outcome {
            Ok(positions) => {
                crash::point("after_effect_before_offset");
                shared.settled(&positions);
                if retry.failures() >= NOT_READY_AFTER {
                    tracing::info!("the worker reaches the store again");
                    ctx.status.set("worker", Ok(()));
                }
                retry.succeeded();
            }
            // The poll thread finds the store's present position and reads again from there.
            Err(StoreError::Retry { why: Why::WentBack(positions), .. }) => {
                shared.put_back(work);
                shared.lock().check_again(&positions);
            }
            Err(error) => {
                shared.put_back(work);
                if retry.failures() + 1 >= NOT_READY_AFTER {
                    ctx.status.set("worker", Err("the store does not answer".to_owned()));
                }
                retry.failed(error).await?;
            }
        }
    }
}

/// Has partitions checked whose stored position is lower than it was: in idle ones no transaction would notice.
async fn looked_back(ctx: &Ctx, shared: &Shared) {
    // An unavailable store is reported elsewhere.
    if let Ok(stands) = ctx.store.reads.positions(&ctx.config.kafka_group).await {
        shared.lock().doubt(&stands);
    }
}
