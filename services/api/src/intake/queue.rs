//! The bounded queue of new orders, and the idempotency keys whose first request is not answered yet.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use minishop_core::idempotency::{Fingerprint, IdempotencyKey};
use minishop_core::ids::{ClientId, Ids, OrderId};
use minishop_core::refusal::Refusal;
use minishop_store::NewOrder;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::metrics::ApiMetrics;
use crate::refusals::{self, Doubt};

/// Maximum number of orders in one statement.
pub(super) const BATCH: usize = 256;
/// The queued orders that start a second writer: with fewer, two half-empty statements cost more than one full one.
pub(super) const SECOND_WRITER_FROM: usize = 32;
/// Maximum number of unanswered orders: queued, in a statement, or waiting for another with the same key.
const MOST_UNANSWERED: usize = 4096;
/// How long a request waits for another one with the same key.
pub(super) const FOLLOWER_WAIT: Duration = Duration::from_secs(2);

/// An order that is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    pub order_id: OrderId,
    pub total_minor: i64,
    pub currency: Option<String>,
    /// Whether an earlier request created it.
    pub replayed: bool,
}

/// The outcome of a queued order.
pub type AcceptOutcome = Result<Accepted, Refusal>;

/// The scope of idempotency: a client's key.
pub(super) type Scope = (ClientId, IdempotencyKey);

/// Orders that wait for a writer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Queue {
    state: Arc<Mutex<State>>,
    wake: Arc<Notify>,
    ids: Arc<dyn Ids>,
    pub(super) metrics: ApiMetrics,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Entry>,
    in_flight: HashMap<Scope, Flight>,
    unanswered: usize,
    busy: usize,
    closed: bool,
    /// The smoothed duration of a statement.
    pace: Duration,
}

/// A key whose first request is not answered.
#[derive(Debug)]
struct Flight {
    fingerprint: Fingerprint,
    followers: Vec<Entry>,
}

/// An order and the request that waits for it.
#[derive(Debug)]
pub(super) struct Entry {
    pub order: NewOrder,
    pub queued: Instant,
    pub deadline: Instant,
    pub reply: oneshot::Sender<AcceptOutcome>,
}

impl Entry {
    pub fn scope(&self) -> Scope {
        (self.order.head.client_id.clone(), self.order.head.key.clone())
    }
}

/// The receiving end of an answer.
#[derive(Debug)]
pub struct Ticket {
    answer: oneshot::Receiver<AcceptOutcome>,
    deadline: Instant,
    /// When a follower stops waiting for the first request with its key.
    follows_until: Option<Instant>,
    wait: Duration,
}

impl Ticket {
    /// Waits for the answer. Dropping the ticket cancels nothing.
    pub async fn outcome(self) -> AcceptOutcome {
        let until = self.follows_until.unwrap_or(self.deadline).min(self.deadline);
        match timeout_at(until, self.answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(refusals::outcome_unknown(Doubt::Create)),
            Err(_) if until < self.deadline => Err(refusals::key_in_flight(self.wait)),
            Err(_) => Err(refusals::write_late(Doubt::Create)),
        }
    }
}

impl Queue {
    /// Makes an empty queue.
    pub fn new(ids: Arc<dyn Ids>, metrics: ApiMetrics) -> Self {
        Self { state: Arc::default(), wake: Arc::default(), ids, metrics }
    }

    /// Queues an order. Refuses at once if its key is in flight for another command, or the queue is closed, full or too slow.
    pub fn submit(&self, order: NewOrder, deadline: Instant) -> Result<Ticket, Refusal> {
        let now = Instant::now();
        if deadline <= now {
            return Err(refusals::write_late(Doubt::Create));
        }
        let (reply, answer) = oneshot::channel();
        let entry = Entry { order, queued: now, deadline, reply };
        let scope = entry.scope();
        let mut state = self.lock();
        // Fingerprints are compared first: another command under this key stays invalid, however long it waits.
        let flight = state.in_flight.get(&scope).map(|flight| flight.fingerprint);
        if flight.is_some_and(|first| first != entry.order.fingerprint) {
            return Err(refusals::key_reused());
        }
        let wait = refusals::retry_after(self.ids.as_ref());
        if state.closed {
            return Err(refusals::shutting_down(wait));
        }
        if state.unanswered >= MOST_UNANSWERED || (flight.is_none() && now + state.expected_wait() > deadline) {
            return Err(refusals::too_many_orders(wait));
        }
        state.unanswered += 1;
        let follows_until = flight.map(|_| now + FOLLOWER_WAIT);
        if let Some(flight) = state.in_flight.get_mut(&scope) {
            flight.followers.push(entry);
        } else {
            state.in_flight.insert(scope, Flight { fingerprint: entry.order.fingerprint, followers: Vec::new() });
            state.waiting.push_back(entry);
            self.wake_if_ready(&state);
        }
        Ok(Ticket { answer, deadline, follows_until, wait })
    }

    /// Waits until a writer should start, and takes a batch; `None` when the queue is closed and empty.
    pub(super) async fn take(&self) -> Option<Vec<Entry>> {
        loop {
            let woken = self.wake.notified();
            if let Some(batch) = self.take_now() {
                return Some(batch);
            }
            if self.lock().is_over() {
                return None;
            }
            woken.await;
        }
    }

    /// Takes a batch if a writer should start now.
    pub(super) fn take_now(&self) -> Option<Vec<Entry>> {
        let mut state = self.lock();
        if !state.is_ready() {
            return None;
        }
        let count = state.waiting.len().min(BATCH);
        let batch = state.waiting.drain(..count).collect();
        state.busy += 1;
        self.wake_if_ready(&state);
        Some(batch)
    }

    /// Records that a writer has finished its batch.
    pub(super) fn done(&self, took: Duration) {
        let mut state = self.lock();
        state.busy -= 1;
        state.pace = (state.pace * 7 + took) / 8;
        self.wake_if_ready(&state);
        if state.is_over() {
            self.wake.notify_waiters();
        }
    }

    /// Answers requests and their followers.
    pub(super) fn settle(&self, outcomes: Vec<(Scope, oneshot::Sender<AcceptOutcome>, AcceptOutcome)>) {
        let mut state = self.lock();
        for (scope, reply, outcome) in outcomes {
            let followers = state.in_flight.remove(&scope).map_or_else(Vec::new, |flight| flight.followers);
            state.unanswered -= 1 + followers.len();
            for follower in followers {
                let outcome = outcome.clone().map(|accepted| Accepted { replayed: true, ..accepted });
                let _ = follower.reply.send(outcome);
            }
            let _ = reply.send(outcome);
        }
        // The other writers may wait for this alone.
        if state.is_over() {
            self.wake.notify_waiters();
        }
    }

    /// Refuses orders whose deadline passed before their statement. The first follower of each takes its place.
    pub(super) fn expire(&self, entries: Vec<Entry>) {
        let mut state = self.lock();
        for entry in entries {
            state.unanswered -= 1;
            let scope = entry.scope();
            let _ = entry.reply.send(Err(refusals::write_late(Doubt::Create)));
            let Some(mut flight) = state.in_flight.remove(&scope) else { continue };
            if !flight.followers.is_empty() {
                let next = flight.followers.remove(0);
                state.in_flight.insert(scope, flight);
                state.waiting.push_front(next);
            }
        }
        self.wake_if_ready(&state);
    }

    /// Refuses new orders. Writers end once all queued orders are answered.
    pub fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_waiters();
    }

    fn wake_if_ready(&self, state: &State) {
        self.metrics.depth(state.waiting.len());
        if state.is_ready() {
            self.wake.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the queue panics")
    }
}

impl State {
    fn is_ready(&self) -> bool {
        let enough = if self.busy == 0 { 1 } else { SECOND_WRITER_FROM };
        self.waiting.len() >= enough
    }

    fn is_over(&self) -> bool {
        self.closed && self.waiting.is_empty() && self.in_flight.is_empty()
    }

    /// Estimates how long a new order waits for its answer. Zero for an idle queue: otherwise one slow statement would shed
    /// all later orders for ever.
    fn expected_wait(&self) -> Duration {
        if self.busy == 0 && self.waiting.is_empty() {
            return Duration::ZERO;
        }
        let statements = self.waiting.len() / BATCH + 1 + self.busy.min(1);
        self.pace * u32::try_from(statements).unwrap_or(u32::MAX)
    }
}
