//! Orders that go into one statement, and what is known of its tries.

use std::time::Duration;

use minishop_core::ids::Ids;
use minishop_core::refusal::Refusal;
use minishop_platform::store::{NewOrder, StoreError};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::queue::{Entry, FOLLOWER_WAIT};
use super::super::{AcceptOutcome, refusals};

/// How long before its deadline a request is told how it stands: its own clock would only say that the time is up.
const MARGIN: Duration = Duration::from_millis(20);

/// Orders in the order of their keys and, in the same places, the requests that wait for them.
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
    /// Takes queued orders.
    pub fn of(entries: Vec<Entry>) -> Self {
        let waits = |entry: Entry| (entry.order, Wait { reply: entry.reply, queued: entry.queued, deadline: entry.deadline });
        let (orders, waits) = entries.into_iter().map(waits).unzip();
        Self { orders, waits }
    }

    pub fn orders(&self) -> &[NewOrder] {
        &self.orders
    }

    pub fn len(&self) -> usize {
        self.orders.len()
    }

    pub fn is_empty(&self) -> bool {
        self.orders.is_empty()
    }

    /// Parts the batch: first what fits, then the rest, both in their order.
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

    /// Gives each order with the request that waits for it.
    pub fn into_iter(self) -> impl Iterator<Item = (NewOrder, oneshot::Sender<AcceptOutcome>)> {
        self.orders.into_iter().zip(self.waits.into_iter().map(|wait| wait.reply))
    }
}

/// A batch that is tried until it is answered.
#[derive(Debug)]
pub struct Job {
    pub batch: Batch,
    /// How often it was tried.
    pub tries: u32,
    /// Whether an earlier try may have committed.
    pub doubt: bool,
    /// Whether the last try found another transaction in the way.
    pub held: bool,
    /// When it is tried again.
    pub at: Instant,
}

impl Job {
    pub fn new(batch: Batch, at: Instant) -> Self {
        Self { batch, tries: 0, doubt: false, held: false, at }
    }

    /// Notes what a failed try says. All that matters is whether something may have been written, and by whom.
    pub fn failed(&mut self, error: &StoreError) {
        self.tries += 1;
        self.doubt |= matches!(error, StoreError::Unknown { .. });
        self.held = error.is_contended();
    }

    /// Parts the job in two, which are tried at once.
    pub fn halves(mut self) -> Vec<Self> {
        let half = self.batch.len() / 2;
        let second = Batch { orders: self.batch.orders.split_off(half), waits: self.batch.waits.split_off(half) };
        let half = |batch| Self { batch, tries: 0, doubt: self.doubt, held: false, at: self.at };
        vec![half(second), half(self.batch)]
    }

    /// Tells when the first of its requests must be answered.
    pub fn until(&self) -> Instant {
        self.batch.waits.iter().map(|wait| self.limit(wait)).min().unwrap_or(self.at)
    }

    fn limit(&self, wait: &Wait) -> Instant {
        let deadline = wait.deadline - MARGIN;
        // In doubt the answer must be found out, for as long as anybody waits for it.
        if self.held && !self.doubt { deadline.min(wait.queued + FOLLOWER_WAIT) } else { deadline }
    }

    /// Takes out what cannot be waited for any longer.
    pub fn take_late(&mut self, now: Instant) -> Batch {
        let batch = std::mem::take(&mut self.batch);
        let (late, live) = batch.part(|_, wait| self.limit(wait) <= now);
        self.batch = live;
        late
    }

    /// Says how things stand when there is no more time.
    pub fn give_up(&self, ids: &dyn Ids) -> Refusal {
        if self.doubt {
            refusals::outcome_unknown()
        } else if self.held {
            refusals::in_flight(refusals::retry_after(ids))
        } else {
            refusals::store_unavailable()
        }
    }
}
