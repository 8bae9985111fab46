//! The orders of one statement, and the state of its attempts.

use std::time::Duration;

use minishop_core::ids::Ids;
use minishop_core::refusal::Refusal;
use minishop_store::{NewOrder, StoreError};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::intake::queue::{AcceptOutcome, Entry, FOLLOWER_WAIT};
use crate::refusals::{self, Doubt};

/// How long before its deadline a request is answered: at the deadline it would only get `DEADLINE_EXCEEDED`.
const MARGIN: Duration = Duration::from_millis(20);

/// Orders, sorted by key, and the requests that wait for them, at the same indices.
#[derive(Debug, Default)]
pub struct Batch {
    orders: Vec<NewOrder>,
    waits: Vec<Wait>,
}

/// A request that waits.
#[derive(Debug)]
struct Wait {
    reply: oneshot::Sender<AcceptOutcome>,
    queued: Instant,
    deadline: Instant,
}

impl Batch {
    /// Makes a batch of queued orders.
    pub fn of(entries: Vec<Entry>) -> Self {
        let waits = |entry: Entry| (entry.order, Wait { reply: entry.reply, queued: entry.queued, deadline: entry.deadline });
        let (orders, waits) = entries.into_iter().map(waits).unzip();
        Self { orders, waits }
    }

    /// Returns the orders, sorted by key.
    pub fn orders(&self) -> &[NewOrder] {
        &self.orders
    }

    /// Returns how many orders wait for an answer.
    pub fn len(&self) -> usize {
        self.orders.len()
    }

    /// Returns whether all are answered.
    pub fn is_empty(&self) -> bool {
        self.orders.is_empty()
    }

    /// Splits the batch into the orders that fit and the rest; both stay sorted.
    pub fn partition(self, fits: impl Fn(&NewOrder) -> bool) -> (Self, Self) {
        self.part(|order, _| fits(order))
    }

    fn part(self, fits: impl Fn(&NewOrder, &Wait) -> bool) -> (Self, Self) {
        let (mut first, mut rest) = (Self::default(), Self::default());
        for (order, wait) in self.orders.into_iter().zip(self.waits) {
            let part = if fits(&order, &wait) { &mut first } else { &mut rest };
            part.orders.push(order);
            part.waits.push(wait);
        }
        (first, rest)
    }

    /// Returns each order with the sender of its answer.
    pub fn into_iter(self) -> impl Iterator<Item = (NewOrder, oneshot::Sender<AcceptOutcome>)> {
        self.orders.into_iter().zip(self.waits.into_iter().map(|wait| wait.reply))
    }
}

/// A batch that is retried until it is answered.
#[derive(Debug)]
pub struct Job {
    pub batch: Batch,
    pub tries: u32,
    /// Whether an earlier attempt may have committed.
    pub doubt: bool,
    /// Whether another transaction blocked the last attempt.
    pub contended: bool,
    /// When the next attempt is due.
    pub at: Instant,
}

impl Job {
    /// Creates a job that was not attempted yet.
    pub fn new(batch: Batch, at: Instant) -> Self {
        Self { batch, tries: 0, doubt: false, contended: false, at }
    }

    /// Records a failed attempt: whether it may have committed, and whether another transaction blocked it.
    pub fn failed(&mut self, error: &StoreError) {
        self.tries += 1;
        self.doubt |= matches!(error, StoreError::Unknown { .. });
        self.contended = error.is_contended();
    }

    /// Splits the job in two, both due at once.
    pub fn halves(mut self) -> Vec<Self> {
        let half = self.batch.len() / 2;
        let second = Batch { orders: self.batch.orders.split_off(half), waits: self.batch.waits.split_off(half) };
        let half = |batch| Self { batch, tries: 0, doubt: self.doubt, contended: false, at: self.at };
        vec![half(second), half(self.batch)]
    }

    /// Returns when the first of its requests must be answered.
    pub fn until(&self) -> Instant {
        self.batch.waits.iter().map(|wait| self.limit(wait)).min().unwrap_or(self.at)
    }

    fn limit(&self, wait: &Wait) -> Instant {
        let deadline = wait.deadline - MARGIN;
        // In doubt the outcome must be found out, for as long as anybody waits for it.
        if self.contended && !self.doubt { deadline.min(wait.queued + FOLLOWER_WAIT) } else { deadline }
    }

    /// Removes and returns the orders that must be answered at `now`.
    pub fn take_late(&mut self, now: Instant) -> Batch {
        let batch = std::mem::take(&mut self.batch);
        let (late, live) = batch.part(|_, wait| self.limit(wait) <= now);
        self.batch = live;
        late
    }

    /// Returns the refusal of orders that are out of time.
    pub fn give_up(&self, ids: &dyn Ids) -> Refusal {
        if self.doubt {
            refusals::outcome_unknown(Doubt::Create)
        } else if self.contended {
            refusals::key_in_flight(refusals::retry_after(ids))
        } else {
            refusals::store_unavailable()
        }
    }
}
