//! Which orders are in flight, and how long each took from its acknowledgement to its processed event.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use minishop_bus::consume::Tail;
use serde::Deserialize;
use tokio::sync::watch;

use super::micros;

/// The orders of a run.
#[derive(Debug)]
pub struct Track {
    orders: Mutex<Orders>,
    processed: watch::Sender<u64>,
    stop: AtomicBool,
}

#[derive(Debug)]
struct Orders {
    /// When each was acknowledged.
    open: HashMap<String, Instant>,
    /// When events came whose acknowledgement is not recorded yet.
    early: HashMap<String, Instant>,
    settled: Histogram<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    order_id: String,
}

#[derive(Deserialize)]
struct Envelope {
    data: Named,
}

impl Default for Track {
    fn default() -> Self {
        let settled = Histogram::new(3).expect("three digits are a lawful precision");
        let orders = Orders { open: HashMap::new(), early: HashMap::new(), settled };
        Self { orders: Mutex::new(orders), processed: watch::Sender::new(0), stop: AtomicBool::new(false) }
    }
}

impl Track {
    /// Records an acknowledged order.
    pub fn acknowledged(&self, order: String, at: Instant) {
        let mut orders = self.lock();
        match orders.early.remove(&order) {
            Some(seen) => self.settle(&mut orders, seen.saturating_duration_since(at)),
            None => drop(orders.open.insert(order, at)),
        }
    }

    /// Waits until `count` orders are processed, at most `patience`.
    pub async fn processed(&self, count: u64, patience: Duration) {
        let mut processed = self.processed.subscribe();
        let _ = tokio::time::timeout(patience, processed.wait_for(|seen| *seen >= count)).await;
    }

    /// Restarts the count; returns how many were processed before.
    pub fn begin(&self) -> u64 {
        self.lock().settled.reset();
        self.processed.send_replace(0)
    }

    /// Ends [`read_processed`].
    pub fn end(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Returns how many orders were processed, and how long they took.
    pub fn settled(&self) -> (u64, Histogram<u64>) {
        (*self.processed.borrow(), self.lock().settled.clone())
    }

    fn seen(&self, order: String, at: Instant) {
        let mut orders = self.lock();
        match orders.open.remove(&order) {
            Some(acknowledged) => self.settle(&mut orders, at - acknowledged),
            None => drop(orders.early.insert(order, at)),
        }
    }

    fn settle(&self, orders: &mut Orders, took: Duration) {
        orders.settled.record(micros(took)).expect("the histogram grows as needed");
        self.processed.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().expect("no holder panics")
    }
}

/// Reads processed events until [`Track::end`].
pub fn read_processed(track: &Track, tail: &Tail) -> anyhow::Result<()> {
    while !track.stop.load(Ordering::Relaxed) {
        let Some(record) = tail.next(Duration::from_millis(50))? else { continue };
        let now = Instant::now();
        if let Ok(envelope) = serde_json::from_slice::<Envelope>(record.value.as_deref().unwrap_or_default()) {
            track.seen(envelope.data.order_id, now);
        }
    }
    Ok(())
}
