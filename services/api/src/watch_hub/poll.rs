//! The task that reads watched orders: all of them in one statement at each tick, and those named in a hint at once.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use minishop_core::ids::OrderId;
use minishop_platform::ctx::Ctx;
use minishop_platform::hints::ChangedOrders;
use minishop_store::Orders;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::hub::OrderWatches;
use super::metrics::WatchMetrics;

/// The longest and the shortest time between two reads of all watched orders.
const SLOWEST: Duration = Duration::from_millis(500);
const FASTEST: Duration = Duration::from_millis(100);
/// The time between two reads of all, in durations of the last read; `SLOWEST` and `FASTEST` bound it.
const SHARE: u32 = 20;

/// Reads orders for all watches of this process.
#[derive(Debug)]
pub struct WatchTask {
    hub: OrderWatches,
    orders: Arc<dyn Orders>,
    changes: broadcast::Receiver<ChangedOrders>,
    drain: CancellationToken,
    /// When all watched orders are read next.
    due: Instant,
    failing: bool,
}

impl WatchTask {
    /// Creates the hub and its task. Call it once per process: it registers metrics.
    pub fn new(ctx: &Ctx) -> (OrderWatches, Self) {
        let metrics = WatchMetrics::register(&ctx.metrics);
        let hub = OrderWatches::new(Arc::clone(&ctx.clock), ctx.drain.clone(), metrics);
        let task = Self {
            hub: hub.clone(),
            orders: Arc::clone(&ctx.store.orders),
            changes: ctx.changes.subscribe(),
            drain: ctx.drain.clone(),
            due: Instant::now(),
            failing: false,
        };
        (hub, task)
    }

    /// Reads until the process drains, and only while orders are watched.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let drain = self.drain.clone();
        loop {
            tokio::select! {
                () = drain.cancelled() => return Ok(()),
                () = due(&self.hub, self.due) => self.poll(None).await,
                heard = self.changes.recv() => {
                    let changed = self.gather(heard);
                    self.poll(changed).await;
                }
            }
        }
    }

    /// Collects the pending hints; `None` if one was missed.
    fn gather(&mut self, first: Result<ChangedOrders, RecvError>) -> Option<HashSet<OrderId>> {
        let mut changed: HashSet<OrderId> = first.ok()?.iter().copied().collect();
        loop {
            match self.changes.try_recv() {
                Ok(more) => changed.extend(more.iter()),
                Err(TryRecvError::Lagged(_)) => return None,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return Some(changed),
            }
        }
    }

    /// Reads the watched orders, all or those in `only`, in one statement.
    async fn poll(&mut self, only: Option<HashSet<OrderId>>) {
        let known = self.hub.known(only.as_ref());
        let began = Instant::now();
        let by = if only.is_some() { "hint" } else { "tick" };
        if !known.is_empty() {
            let read = self.orders.changed(&known).await;
            self.hub.metrics.polled(by, read.is_ok(), began.elapsed());
            match read {
                Ok(changed) => {
                    self.failing = false;
                    self.hub.deliver(changed);
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.failing, true) {
                        warn!(order.count = known.len(), error = ?error, "cannot read watched orders; watchers wait");
                    }
                }
            }
        }
        if only.is_none() {
            self.due = began + (began.elapsed() * SHARE).clamp(FASTEST, SLOWEST);
        }
    }
}

/// Waits until an order is watched and the next read of all is due.
async fn due(hub: &OrderWatches, at: Instant) {
    hub.watched().await;
    sleep_until(at).await;
}
