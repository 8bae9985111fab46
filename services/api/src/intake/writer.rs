//! A writer: owns one connection, runs one statement after the other, and finishes each even if its callers go away.

mod batch;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use minishop_core::backoff::Backoff;
use minishop_core::ids::{Ids, OrderId};
use minishop_core::order_head::OrderHead;
use minishop_core::refusal::Refusal;
use minishop_store::{Intake, KeyRecord, NewOrder, Orders, OutboxRow, StoreError};
use tokio::time::{Instant, sleep_until};
use tracing::{error, warn};

use super::queue::{AcceptOutcome, Accepted, Entry, Queue, Scope};
use crate::hand_over::{Committed, HandOver};
use crate::refusals::{self, Doubt};
use batch::{Batch, Job};

/// The number of writers.
pub const WRITERS: usize = 2;
/// Attempts before a batch is refused that certainly wrote nothing. The first may fail on a connection that was closed meanwhile.
const TRIES: u32 = 3;

/// One of the writers.
pub struct Writer {
    queue: Queue,
    orders: Arc<dyn Orders>,
    ids: Arc<dyn Ids>,
    hand_over: HandOver,
    connection: Option<Box<dyn Intake>>,
    /// Jobs to retry later; other orders do not wait for them.
    parked: Vec<Job>,
    /// Why the process must end.
    fault: Option<StoreError>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("connected", &self.connection.is_some()).finish_non_exhaustive()
    }
}

impl Writer {
    /// Creates a writer that connects on demand.
    pub fn new(queue: Queue, orders: Arc<dyn Orders>, ids: Arc<dyn Ids>, hand_over: HandOver) -> Self {
        Self { queue, orders, ids, hand_over, connection: None, parked: Vec::new(), fault: None }
    }

    /// Writes until the queue is closed and empty. Fails if the disk does not sync: then this process cannot be trusted.
    pub async fn run(mut self) -> anyhow::Result<()> {
        loop {
            let due = self.parked.iter().map(|job| job.at).min();
            tokio::select! {
                entries = self.queue.take() => match entries {
                    Some(entries) => self.write(entries).await,
                    None => return Ok(()),
                },
                () = at(due) => self.resume().await,
            }
            if let Some(fault) = self.fault.take() {
                return Err(fault.into());
            }
        }
    }

    /// Writes the queued orders, with all retries. Returns whether there were any.
    #[cfg(test)]
    pub async fn step(&mut self) -> bool {
        let Some(entries) = self.queue.take_now() else { return false };
        self.write(entries).await;
        while let Some(due) = self.parked.iter().map(|job| job.at).min() {
            sleep_until(due).await;
            self.resume().await;
        }
        true
    }

    async fn write(&mut self, entries: Vec<Entry>) {
        let started = Instant::now();
        let (mut live, expired): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.deadline > started);
        if !expired.is_empty() {
            self.queue.expire(expired);
        }
        // All writers of all processes lock in the same order, so that two batches cannot deadlock.
        live.sort_by(|a, b| (&a.order.head.client_id, &a.order.head.key).cmp(&(&b.order.head.client_id, &b.order.head.key)));
        if !live.is_empty() {
            self.finish(Job::new(Batch::of(live), started)).await;
        }
        self.queue.done(started.elapsed());
    }

    /// Retries the due jobs; refuses their orders that must be answered now.
    async fn resume(&mut self) {
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.parked).into_iter().partition(|job| job.at <= now);
        self.parked = later;
        let due: Vec<Job> = due;
        for mut job in due {
            let late = job.take_late(now);
            if !late.is_empty() {
                self.refuse(late, &job.give_up(self.ids.as_ref()));
            }
            if !job.batch.is_empty() {
                self.finish(job).await;
            }
        }
    }

    /// Runs a job until its orders are answered or postponed. If one row makes the statement fail, the job is split in halves until
    /// that row is alone.
    async fn finish(&mut self, job: Job) {
        let mut jobs = vec![job];
        while let Some(job) = jobs.pop() {
            jobs.extend(self.attempt(job).await);
        }
    }

    async fn attempt(&mut self, mut job: Job) -> Vec<Job> {
        self.queue.metrics.batch(job.batch.len());
        match self.try_once(job.batch.orders()).await {
            Ok(made) => self.answer(job.batch, &made, job.doubt).await,
            Err(source) if source.is_sync_failure() => {
                error!(error = ?source, "the disk failed to sync; the process ends");
                self.refuse(job.batch, &refusals::outcome_unknown(Doubt::Create));
                self.fault = Some(source);
            }
            Err(StoreError::Fail { source, .. }) if job.batch.len() == 1 => {
                let order = &job.batch.orders()[0];
                let trace_id = order.traceparent.as_deref().and_then(|parent| parent.get(3..35));
                error!(order.id = %order.head.order_id, correlation_id = %order.head.correlation_id, trace_id, error = ?source, "the store refused one order");
                self.refuse(job.batch, &fault(job.doubt));
            }
            Err(error) if error.blames_the_input() => return job.halves(),
            Err(source @ StoreError::Fail { .. }) => {
                error!(order.count = job.batch.len(), error = ?source, "the store refused a batch; the database is not as expected");
                self.refuse(job.batch, &fault(job.doubt));
            }
            Err(source) => {
                job.failed(&source);
                if job.contended && job.batch.len() > 1 {
                    return job.halves();
                }
                if !job.contended {
                    // After any other error the next attempt opens a new connection. The relay is told before a later commit.
                    self.connection = None;
                    (self.hand_over)(Committed::InDoubt);
                }
                self.postpone(job, &source);
            }
        }
        Vec::new()
    }

    /// Schedules a retry. A job that is neither in doubt nor held by another transaction is refused after `TRIES` attempts.
    fn postpone(&mut self, mut job: Job, source: &StoreError) {
        if !job.doubt && !job.contended && job.tries >= TRIES {
            warn!(order.count = job.batch.len(), error = ?source, "the store does not answer; a batch is refused");
            return self.refuse(job.batch, &refusals::store_unavailable());
        }
        let wait = self.backoff(job.tries);
        job.at = job.until().min(Instant::now() + wait);
        self.parked.push(job);
    }

    async fn try_once(&mut self, orders: &[NewOrder]) -> Result<HashMap<OrderId, i64>, StoreError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            // A failed connect has written no order.
            None => self.orders.intake().await.map_err(retry)?,
        };
        self.connection.insert(connection).accept(orders).await
    }

    /// Answers a committed batch: new orders first, then those whose key existed.
    async fn answer(&mut self, batch: Batch, made: &HashMap<OrderId, i64>, doubt: bool) {
        let (new, known) = batch.partition(|order| made.contains_key(&order.head.order_id));
        if !new.is_empty() {
            let mut rows = Vec::with_capacity(made.len());
            let answers = new.into_iter().map(|(NewOrder { head, event, .. }, reply)| {
                let OrderHead { order_id, total_minor, currency, client_id, key, .. } = head;
                rows.push(OutboxRow::new(made[&order_id], event));
                ((client_id, key), reply, Ok(Accepted { order_id, total_minor, currency, replayed: false }))
            });
            let answers = answers.collect();
            (self.hand_over)(Committed::Rows(rows));
            self.queue.settle(answers);
        }
        if !known.is_empty() {
            self.answer_known(known, doubt).await;
        }
    }

    async fn answer_known(&mut self, batch: Batch, doubt: bool) {
        let scopes: Vec<Scope> = batch.orders().iter().map(scope).collect();
        let records = match self.read(&scopes).await {
            Ok(records) => records,
            Err(source) => {
                warn!(order.count = scopes.len(), doubt, error = ?source, "cannot read the keys of a batch");
                let refusal = if doubt { refusals::outcome_unknown(Doubt::Create) } else { refusals::store(&source) };
                return self.refuse(batch, &refusal);
            }
        };
        let records: HashMap<Scope, KeyRecord> = records.into_iter().map(|r| ((r.client_id.clone(), r.key.clone()), r)).collect();
        let outcomes = scopes.into_iter().zip(batch.into_iter()).map(|(scope, (order, reply))| {
            let outcome = match records.get(&scope) {
                Some(record) => judge(record, &order),
                // The other transaction was rolled back, or a replica lags: this order was not written.
                None => Err(refusals::store_unavailable()),
            };
            (scope, reply, outcome)
        });
        self.queue.settle(outcomes.collect());
    }

    async fn read(&mut self, scopes: &[Scope]) -> Result<Vec<KeyRecord>, StoreError> {
        let mut attempt = 1;
        loop {
            match self.orders.by_keys(scopes).await {
                Err(StoreError::Retry { .. } | StoreError::Unknown { .. }) if attempt < TRIES => {
                    tokio::time::sleep(self.backoff(attempt)).await;
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    fn refuse(&self, batch: Batch, refusal: &Refusal) {
        let outcomes = batch.into_iter().map(|(order, reply)| (scope(&order), reply, Err(refusal.clone())));
        self.queue.settle(outcomes.collect());
    }

    fn backoff(&self, attempt: u32) -> Duration {
        Backoff::INFRASTRUCTURE.wait(attempt.min(4), self.ids.jitter())
    }
}

/// Waits until `due`, or for ever.
async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Returns the refusal of an internal fault. In doubt it must not claim that nothing was written.
fn fault(doubt: bool) -> Refusal {
    if doubt { refusals::outcome_unknown(Doubt::Create) } else { refusals::internal() }
}

/// Compares an order with the record under its key.
fn judge(record: &KeyRecord, order: &NewOrder) -> AcceptOutcome {
    let own = record.order_id == order.head.order_id;
    if !own && record.fingerprint != order.fingerprint {
        return Err(refusals::key_reused());
    }
    Ok(Accepted {
        order_id: record.order_id,
        total_minor: record.total_minor,
        currency: record.currency.clone(),
        // An earlier attempt of this batch created it, and its answer was lost: not a replay.
        replayed: !own,
    })
}

fn scope(order: &NewOrder) -> Scope {
    (order.head.client_id.clone(), order.head.key.clone())
}

fn retry(error: StoreError) -> StoreError {
    match error {
        StoreError::Unknown { operation, source } => StoreError::retry(operation, source),
        other => other,
    }
}
