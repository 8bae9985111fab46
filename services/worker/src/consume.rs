//! The poll thread, the queue between it and the processor, and the offsets.
//!
//! The thread never waits for the processor: while the queue is full the partitions are paused and polling goes on, so the group
//! keeps its member. An offset is committed only after the transaction that settled it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use minishop_contracts::topics;
use minishop_core::backoff::Backoff;
use minishop_core::ids::CorrelationId;
use minishop_platform::bus::Record;
use minishop_platform::bus::consume::{Consumer, Handlers, Partition, PollError, Settings};
use minishop_platform::ctx::{Ctx, Task};
use minishop_platform::store::Position;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::metrics::WorkerMetrics;
use crate::process::Processor;

/// Records in one batch at most.
const BATCH: usize = 512;
/// Batches between the thread and the processor.
const QUEUE: usize = 4;
/// How long a rebalance or the end waits for the running transaction.
const WAIT_FOR_BATCH: Duration = Duration::from_secs(3);
/// How long the thread waits for the processor before it pauses the partitions; a rebalance waits as long.
const WAIT_FOR_ROOM: Duration = Duration::from_millis(500);
/// How often settled offsets are committed.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

type Place = (String, i32);

/// What thread and processor share.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<Assignment>,
    idle: Condvar,
}

#[derive(Debug, Default)]
struct Assignment {
    /// Partitions of this member; records of others are dropped before they are processed.
    owned: HashSet<Place>,
    /// How far each is settled, as far as it is not committed yet.
    settled: HashMap<Place, i64>,
    /// Whether a transaction runs.
    busy: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Assignment> {
        self.state.lock().expect("no holder of the assignment panics")
    }

    /// Waits for the running transaction, at most [`WAIT_FOR_BATCH`].
    fn wait_idle(&self) -> MutexGuard<'_, Assignment> {
        let guard = self.lock();
        self.idle.wait_timeout_while(guard, WAIT_FOR_BATCH, |state| state.busy).expect("no holder of the assignment panics").0
    }

    fn take_settled(state: &mut Assignment, of: impl Fn(&Place) -> bool) -> Vec<Position> {
        let places: Vec<Place> = state.settled.keys().filter(|place| of(place)).cloned().collect();
        places
            .into_iter()
            .filter_map(|place| {
                state.settled.remove(&place).map(|next_offset| Position { topic: place.0, partition: place.1, next_offset })
            })
            .collect()
    }
}

/// Makes the two tasks.
pub fn tasks(ctx: Ctx, metrics: WorkerMetrics) -> Vec<Task> {
    let shared = Arc::new(Shared::default());
    let (send, receive) = mpsc::channel(QUEUE);
    let poll = {
        let (shared, ctx) = (shared.clone(), ctx.clone());
        Task::new("worker poll", async move {
            tokio::task::spawn_blocking(move || poll(&ctx, &shared, &send)).await.context("the poll thread panicked")?
        })
    };
    let process = Task::new("worker process", process(ctx, shared, receive, metrics));
    vec![poll, process]
}

fn place(p: &Partition) -> Place {
    (p.topic.to_string(), p.partition)
}

fn handlers(shared: &Arc<Shared>) -> Handlers {
    let (assigned, revoked, lost) = (shared.clone(), shared.clone(), shared.clone());
    Handlers {
        assigned: Box::new(move |partitions| {
            assigned.lock().owned.extend(partitions.iter().map(|a| place(&a.partition)));
            Vec::new()
        }),
        revoked: Box::new(move |partitions| {
            let gone: HashSet<Place> = partitions.iter().map(place).collect();
            // First no new batch may take them, then the running one is awaited.
            revoked.lock().owned.retain(|p| !gone.contains(p));
            let mut state = revoked.wait_idle();
            Shared::take_settled(&mut state, |p| gone.contains(p))
        }),
        lost: Box::new(move |partitions| {
            let gone: HashSet<Place> = partitions.iter().map(place).collect();
            let mut state = lost.lock();
            state.owned.retain(|p| !gone.contains(p));
            state.settled.retain(|p, _| !gone.contains(p));
        }),
    }
}

/// Polls until the drain, on a thread that may block.
fn poll(ctx: &Ctx, shared: &Arc<Shared>, queue: &mpsc::Sender<Vec<Record>>) -> anyhow::Result<()> {
    let settings = Settings {
        brokers: ctx.brokers.clone(),
        group: ctx.config.kafka_group.clone(),
        topics: vec![topics::prefixed(&ctx.config.topic_prefix, topics::CREATED)],
        session_timeout: ctx.config.kafka_session_timeout,
        client_id: format!("minishop-worker-{}", CorrelationId::new(ctx.clock.now(), ctx.ids.random())),
    };
    let consumer = Consumer::join(&settings, handlers(shared))?;
    let runtime = Handle::current();
    let mut held: Option<Vec<Record>> = None;
    let mut committed_at = Instant::now();
    while !ctx.drain.is_cancelled() {
        let paused = held.is_some();
        let batch = match held.take() {
            None => collect(&consumer, Duration::from_millis(100))?,
            Some(mut batch) => {
                // Serves the group; brings only records that were on their way when the partitions were paused.
                batch.extend(collect(&consumer, Duration::from_millis(10))?);
                batch
            }
        };
        match offer(&runtime, queue, batch) {
            Offered::Taken if paused => consumer.resume().context("cannot resume the partitions")?,
            Offered::Taken => {}
            Offered::Full(batch) => {
                // Again when paused already, since partitions may have come meanwhile.
                consumer.pause().context("cannot pause the partitions")?;
                held = Some(batch);
            }
            Offered::Closed => break,
        }
        if committed_at.elapsed() >= COMMIT_EVERY {
            committed_at = Instant::now();
            let settled = Shared::take_settled(&mut shared.lock(), |_| true);
            if !settled.is_empty()
                && let Err(error) = consumer.commit(&settled)
            {
                // The next commit is further on, and the inbox absorbs what is read again.
                tracing::debug!(error = ?error, "an offset commit was refused");
            }
        }
    }
    finish(&consumer, shared);
    Ok(())
}

/// What became of a batch that was offered to the processor.
enum Offered {
    Taken,
    Full(Vec<Record>),
    Closed,
}

/// Offers a batch to the processor and waits a little for room: to pause costs more, since the client then throws away what
/// it has fetched ahead and fetches it again.
fn offer(runtime: &Handle, queue: &mpsc::Sender<Vec<Record>>, batch: Vec<Record>) -> Offered {
    if batch.is_empty() {
        return Offered::Taken;
    }
    match runtime.block_on(tokio::time::timeout(WAIT_FOR_ROOM, queue.reserve())) {
        Ok(Ok(room)) => {
            room.send(batch);
            Offered::Taken
        }
        Ok(Err(_)) => Offered::Closed,
        Err(_) => Offered::Full(batch),
    }
}

/// Takes what the client has at once, at most a batch.
fn collect(consumer: &Consumer, wait: Duration) -> anyhow::Result<Vec<Record>> {
    let mut batch = Vec::new();
    let mut wait = wait;
    while batch.len() < BATCH {
        match consumer.poll(wait) {
            Ok(Some(record)) => batch.push(record),
            Ok(None) => break,
            Err(PollError::Passing(error)) => {
                tracing::debug!(error = ?error, "the event log cannot be read at the moment");
                break;
            }
            Err(PollError::Exceeded) => {
                tracing::warn!("polled too late; the group has moved the partitions");
                batch.clear();
                break;
            }
            Err(PollError::Fatal(error)) => return Err(error.context("the consumer cannot go on")),
        }
        wait = Duration::ZERO;
    }
    Ok(batch)
}

/// Waits for the running transaction and commits what is settled; what is queued is read again.
fn finish(consumer: &Consumer, shared: &Shared) {
    let mut state = shared.wait_idle();
    state.owned.clear();
    let settled = Shared::take_settled(&mut state, |_| true);
    drop(state);
    if !settled.is_empty()
        && let Err(error) = consumer.commit_and_wait(&settled)
    {
        tracing::info!(error = ?error, "the last offsets were not committed; their events are read again and change nothing");
    }
}

/// Processes batches until the drain.
async fn process(
    ctx: Ctx,
    shared: Arc<Shared>,
    mut queue: mpsc::Receiver<Vec<Record>>,
    metrics: WorkerMetrics,
) -> anyhow::Result<()> {
    let processor = Processor::new(&ctx, metrics);
    // Until then another process may believe that it alone writes these outbox rows.
    ctx.relay.settled().await;
    ctx.status.set("worker", Ok(()));
    loop {
        let batch = tokio::select! {
            biased;
            () = ctx.drain.cancelled() => return Ok(()),
            batch = queue.recv() => match batch {
                Some(batch) => batch,
                None => return Ok(()),
            },
        };
        settle(&ctx, &processor, &shared, batch).await;
    }
}

/// Settles one batch, again and again while the store is away: that is never an event's fault.
async fn settle(ctx: &Ctx, processor: &Processor, shared: &Shared, batch: Vec<Record>) {
    let mut failures = 0;
    loop {
        let owned: Vec<Record> = {
            let mut state = shared.lock();
            state.busy = true;
            batch.iter().filter(|r| state.owned.contains(&(r.topic.to_string(), r.partition))).cloned().collect()
        };
        let outcome = if owned.is_empty() { Ok(Vec::new()) } else { processor.step(&owned).await };
        {
            let mut state = shared.lock();
            state.busy = false;
            if let Ok(positions) = &outcome {
                // A partition that went meanwhile is another member's to commit.
                let owned: Vec<_> = positions.iter().filter(|p| state.owned.contains(&(p.topic.clone(), p.partition))).collect();
                for p in owned {
                    state.settled.insert((p.topic.clone(), p.partition), p.next_offset);
                }
            }
        }
        shared.idle.notify_all();
        let Err(error) = outcome else {
            if failures > 0 {
                ctx.status.set("worker", Ok(()));
                tracing::info!("the worker reaches the store again");
            }
            return;
        };
        failures += 1;
        if failures == 1 {
            tracing::warn!(error = ?error, "the worker cannot settle a batch; it tries on");
        }
        ctx.status.set("worker", Err("the store does not answer".to_owned()));
        let jitter = u32::from_be_bytes(ctx.ids.random()[..4].try_into().expect("four of ten bytes"));
        if wait(&ctx.drain, Backoff::INFRASTRUCTURE.wait(failures, jitter)).await {
            return;
        }
    }
}

/// Waits; `true` when the drain came first.
async fn wait(drain: &CancellationToken, time: Duration) -> bool {
    tokio::time::timeout(time.max(Duration::from_millis(5)), drain.cancelled()).await.is_ok()
}
