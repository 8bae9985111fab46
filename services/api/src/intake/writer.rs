//! A writer: owns one connection, runs one statement after the other, and finishes what it began whoever waits for it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use minishop_core::backoff::Backoff;
use minishop_core::ids::{Ids, OrderId};
use minishop_core::refusal::Refusal;
use minishop_platform::store::{Intake, KeyRecord, NewOrder, Orders, OutboxRow, StoreError};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{error, warn};

use super::queue::{Entry, Scope};
use super::{Accepted, Outcome, Queue, refusals};

/// How often a statement is tried that certainly wrote nothing: a first try may meet a stale connection.
const TRIES: u32 = 3;
/// How long an unknown outcome is looked for before the client is told to look for itself.
const DOUBT: Duration = Duration::from_secs(4);

/// Takes committed outbox rows to the relay.
pub type HandOver = Arc<dyn Fn(Vec<OutboxRow>) + Send + Sync>;

/// One of the writers.
pub struct Writer {
    queue: Queue,
    orders: Arc<dyn Orders>,
    ids: Arc<dyn Ids>,
    hand_over: HandOver,
    connection: Option<Box<dyn Intake>>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("connected", &self.connection.is_some()).finish_non_exhaustive()
    }
}

/// Orders and, in the same places, the requests that wait for them.
#[derive(Default)]
struct Batch {
    orders: Vec<NewOrder>,
    replies: Vec<oneshot::Sender<Outcome>>,
}

/// What became of a statement.
enum Tried {
    /// It committed; `doubt` when an earlier try may have committed too.
    Made { made: HashMap<OrderId, i64>, doubt: bool },
    /// The database can never write one of its rows.
    Bad(StoreError),
    /// Nothing is to be had for now.
    Refused(Refusal),
}

impl Writer {
    /// Makes a writer that connects when it is needed.
    pub fn new(queue: Queue, orders: Arc<dyn Orders>, ids: Arc<dyn Ids>, hand_over: HandOver) -> Self {
        Self { queue, orders, ids, hand_over, connection: None }
    }

    /// Writes until the queue is closed and empty.
    pub async fn run(mut self) {
        while let Some(entries) = self.queue.take().await {
            self.write(entries).await;
        }
    }

    /// Writes what waits now; `false` when nothing did.
    #[cfg(test)]
    pub async fn step(&mut self) -> bool {
        let Some(entries) = self.queue.take_now() else { return false };
        self.write(entries).await;
        true
    }

    async fn write(&mut self, entries: Vec<Entry>) {
        let started = Instant::now();
        let (mut live, expired): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.deadline > started);
        if !expired.is_empty() {
            self.queue.expire(expired);
        }
        // One order of locks for all writers of all processes, so that two batches cannot deadlock.
        live.sort_by(|a, b| (&a.order.client_id, &a.order.key).cmp(&(&b.order.client_id, &b.order.key)));
        let mut parts = vec![Batch::of(live)];
        while let Some(batch) = parts.pop() {
            if !batch.orders.is_empty() {
                parts.extend(self.accept(batch).await);
            }
        }
        self.queue.done(started.elapsed());
    }

    /// Runs a batch and answers it; gives its halves back when one of its rows is bad and which one is not known.
    async fn accept(&mut self, batch: Batch) -> Vec<Batch> {
        self.queue.metrics.batch(batch.orders.len());
        match self.insert(&batch.orders).await {
            Tried::Made { made, doubt } => self.answer(batch, &made, doubt).await,
            Tried::Refused(refusal) => self.refuse(batch, &refusal),
            Tried::Bad(source) if batch.orders.len() == 1 => {
                error!(order.id = %batch.orders[0].order_id, error = ?source, "the store refused one order");
                self.refuse(batch, &refusals::internal());
            }
            Tried::Bad(_) => return batch.halves(),
        }
        Vec::new()
    }

    async fn insert(&mut self, orders: &[NewOrder]) -> Tried {
        let give_up = Instant::now() + DOUBT;
        let mut doubt = false;
        for attempt in 1.. {
            match self.try_once(orders).await {
                Ok(made) => return Tried::Made { made, doubt },
                Err(source @ StoreError::Fail { .. }) => return Tried::Bad(source),
                Err(source) => {
                    doubt |= matches!(source, StoreError::Unknown { .. });
                    // Whatever it was, the connection is no longer trusted.
                    self.connection = None;
                    if (!doubt && attempt >= TRIES) || Instant::now() >= give_up {
                        warn!(orders = orders.len(), doubt, error = ?source, "the store did not take a batch");
                        break;
                    }
                }
            }
            tokio::time::sleep(self.backoff(attempt)).await;
        }
        Tried::Refused(if doubt { refusals::outcome_unknown() } else { refusals::store_unavailable() })
    }

    async fn try_once(&mut self, orders: &[NewOrder]) -> Result<HashMap<OrderId, i64>, StoreError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            // To be refused a connection says nothing about any order.
            None => self.connection.insert(self.orders.intake().await.map_err(retry)?),
        };
        connection.accept(orders).await
    }

    /// Answers a committed batch: new orders first, then those whose key existed.
    async fn answer(&mut self, mut batch: Batch, made: &HashMap<OrderId, i64>, doubt: bool) {
        let mut known = Batch::default();
        let mut created = Vec::with_capacity(made.len());
        let mut rows = Vec::with_capacity(made.len());
        for (order, reply) in batch.orders.drain(..).zip(batch.replies.drain(..)) {
            let Some(id) = made.get(&order.order_id) else {
                known.orders.push(order);
                known.replies.push(reply);
                continue;
            };
            let accepted =
                Accepted { order_id: order.order_id, total_minor: order.total_minor, currency: order.currency, replayed: false };
            created.push(((order.client_id, order.key), reply, Ok(accepted)));
            rows.push(OutboxRow { id: *id, event: order.event });
        }
        if !rows.is_empty() {
            rows.sort_by_key(|row| row.id);
            (self.hand_over)(rows);
            self.queue.settle(created);
        }
        if !known.orders.is_empty() {
            self.answer_known(known, doubt).await;
        }
    }

    async fn answer_known(&mut self, batch: Batch, doubt: bool) {
        let scopes: Vec<Scope> = batch.orders.iter().map(scope).collect();
        let records = match self.read(&scopes).await {
            Ok(records) => records,
            Err(source) => {
                warn!(orders = scopes.len(), doubt, error = ?source, "the keys of a batch could not be read");
                let refusal = if doubt { refusals::outcome_unknown() } else { refusals::store_refusal(&source) };
                return self.refuse(batch, &refusal);
            }
        };
        let records: HashMap<Scope, KeyRecord> = records.into_iter().map(|r| ((r.client_id.clone(), r.key.clone()), r)).collect();
        let outcomes = scopes.into_iter().zip(batch.orders).zip(batch.replies).map(|((scope, order), reply)| {
            let outcome = match records.get(&scope) {
                Some(record) => judge(record, &order),
                // Its maker was rolled back, or a replica lags: nothing of ours was written.
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
        let outcomes = batch.orders.iter().zip(batch.replies).map(|(order, reply)| (scope(order), reply, Err(refusal.clone())));
        self.queue.settle(outcomes.collect());
    }

    fn backoff(&self, attempt: u32) -> Duration {
        let [a, b, c, d, ..] = self.ids.random();
        Backoff::INFRASTRUCTURE.wait(attempt.min(4), u32::from_be_bytes([a, b, c, d]))
    }
}

impl Batch {
    fn of(entries: Vec<Entry>) -> Self {
        let (orders, replies) = entries.into_iter().map(|entry| (entry.order, entry.reply)).unzip();
        Self { orders, replies }
    }

    fn halves(mut self) -> Vec<Self> {
        let half = self.orders.len() / 2;
        let second = Self { orders: self.orders.split_off(half), replies: self.replies.split_off(half) };
        vec![second, self]
    }
}

/// Compares an order with the record under its key.
fn judge(record: &KeyRecord, order: &NewOrder) -> Outcome {
    let own = record.order_id == order.order_id;
    if !own && record.fingerprint != order.fingerprint {
        return Err(refusals::reused());
    }
    Ok(Accepted {
        order_id: record.order_id,
        total_minor: record.total_minor,
        currency: record.currency.clone(),
        // An earlier try of this very batch made it: its answer was lost, not given.
        replayed: !own,
    })
}

fn scope(order: &NewOrder) -> Scope {
    (order.client_id.clone(), order.key.clone())
}

fn retry(error: StoreError) -> StoreError {
    match error {
        StoreError::Unknown { operation, source } => StoreError::Retry { operation, source },
        other => other,
    }
}
