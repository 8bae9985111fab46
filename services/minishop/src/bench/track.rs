//! Which orders were accepted and processed, how long that took, and whether each was processed exactly once.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::watch;
use uuid::Uuid;

use super::micros;
use super::series::Series;

/// The orders of a run.
#[derive(Debug)]
pub struct Track {
    orders: Mutex<Orders>,
    /// Orders that are accepted, awaited and not processed yet; and those that are processed.
    progress: watch::Sender<Progress>,
}

/// How far the awaited orders are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    pub open: u64,
    pub processed: u64,
}

#[derive(Debug)]
struct Orders {
    all: HashMap<Uuid, Order>,
    measured: Measured,
}

/// What is measured since [`Track::begin`].
#[derive(Debug, Clone)]
pub struct Measured {
    pub processed: u64,
    /// From the acknowledgement to the processed event, in microseconds.
    pub took: Histogram<u64>,
    pub over_time: Series,
    /// When the first and the last order were processed; the begin, if none was.
    pub first: Instant,
    pub last: Instant,
}

#[derive(Debug, Default)]
struct Order {
    /// When it was acknowledged. `None` for an order whose event came first, or of another client.
    acknowledged: Option<Instant>,
    /// Not the order of a failing customer.
    is_awaited: bool,
    /// The id of its first processed event, and when it came.
    processed: Option<(Uuid, Instant)>,
    /// Further records with the id of the first event.
    copies: u64,
    /// Whether another event of another id has come.
    is_doubled: bool,
}

/// Whether each accepted order was processed exactly once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Accepted and awaited orders.
    pub awaited: u64,
    /// Of these, orders without a processed event.
    pub lost: u64,
    /// Accepted orders with processed events of different ids.
    pub doubled: u64,
    /// Records that repeat an event under its own id: lawful, because delivery is at least once.
    pub copies: u64,
}

impl Measured {
    fn new(begun: Instant) -> Self {
        let took = Histogram::new(3).expect("three digits are a lawful precision");
        Self { processed: 0, took, over_time: Series::new(begun), first: begun, last: begun }
    }
}

impl Track {
    /// Begins without orders.
    pub fn new() -> Self {
        let orders = Orders { all: HashMap::new(), measured: Measured::new(Instant::now()) };
        Self { orders: Mutex::new(orders), progress: watch::Sender::default() }
    }

    /// Records an acknowledged order.
    pub fn acknowledged(&self, order: Uuid, at: Instant, is_awaited: bool) {
        let mut orders = self.lock();
        let Orders { all, measured } = &mut *orders;
        let order = all.entry(order).or_default();
        order.acknowledged = Some(at);
        order.is_awaited = is_awaited;
        if is_awaited {
            self.progress.send_modify(|progress| progress.open += 1);
            if let Some((_, seen)) = order.processed {
                self.settle(measured, at, seen);
            }
        }
    }

    /// Records a processed event.
    pub fn processed(&self, order: Uuid, event: Uuid, at: Instant) {
        let mut orders = self.lock();
        let Orders { all, measured } = &mut *orders;
        let order = all.entry(order).or_default();
        match order.processed {
            None => {
                order.processed = Some((event, at));
                if let Some(acknowledged) = order.acknowledged.filter(|_| order.is_awaited) {
                    self.settle(measured, acknowledged, at);
                }
            }
            Some((first, _)) if first == event => order.copies += 1,
            Some(_) => order.is_doubled = true,
        }
    }

    fn settle(&self, measured: &mut Measured, acknowledged: Instant, seen: Instant) {
        let took = micros(seen.saturating_duration_since(acknowledged));
        if measured.processed == 0 {
            measured.first = seen;
        }
        measured.processed += 1;
        measured.took.record(took).expect("the histogram grows as needed");
        measured.over_time.record(seen, took);
        measured.last = measured.last.max(seen);
        self.progress.send_modify(|progress| {
            progress.open -= 1;
            progress.processed += 1;
        });
    }

    /// Waits until no order is open. Gives up when none was processed for as long as `patience`; returns whether none is open.
    pub async fn settled(&self, patience: Duration) -> bool {
        let mut progress = self.progress.subscribe();
        loop {
            let Progress { open, processed } = *progress.borrow_and_update();
            if open == 0 {
                return true;
            }
            let next = progress.wait_for(|now| now.open == 0 || now.processed > processed);
            if tokio::time::timeout(patience, next).await.is_err() {
                return false;
            }
        }
    }

    /// Forgets what was measured, but no order: the verdict is about all of them.
    pub fn begin(&self, begun: Instant) {
        self.lock().measured = Measured::new(begun);
    }

    /// Returns how far the orders are.
    pub fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// Returns what was measured.
    pub fn measured(&self) -> Measured {
        self.lock().measured.clone()
    }

    /// Judges all orders.
    pub fn verdict(&self) -> Verdict {
        let mut verdict = Verdict::default();
        for order in self.lock().all.values().filter(|order| order.acknowledged.is_some()) {
            verdict.awaited += u64::from(order.is_awaited);
            verdict.lost += u64::from(order.is_awaited && order.processed.is_none());
            verdict.doubled += u64::from(order.is_doubled);
            verdict.copies += order.copies;
        }
        verdict
    }

    fn lock(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().expect("no holder panics")
    }
}

#[cfg(test)]
mod tests;
