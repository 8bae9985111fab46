//! The task that reads watched orders: all of them in one statement at each tick, and those that changed as soon as it hears so.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use minishop_core::ids::OrderId;
use minishop_platform::ctx::Ctx;
use minishop_platform::hints::ChangedOrders;
use minishop_platform::store::Orders;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::OrderWatches;
use super::metrics::WatchMetrics;

/// The longest time between two reads of all watched orders, and the shortest.
const SLOWEST: Duration = Duration::from_millis(500);
const FASTEST: Duration = Duration::from_millis(100);
/// Reading all may take one part in so many of the time.
const SHARE: u32 = 20;

/// Reads for all who watch in this process.
#[derive(Debug)]
pub struct WatchTask {
    hub: OrderWatches,
    orders: Arc<dyn Orders>,
    changes: broadcast::Receiver<ChangedOrders>,
    drain: CancellationToken,
    /// When all are read next.
    due: Instant,
    failing: bool,
}

impl WatchTask {
    /// Makes the task and the hub that it reads for; once a process, since it registers its metrics.
    pub fn new(ctx: &Ctx) -> (OrderWatches, Self) {
        let metrics = ctx.metrics.with(WatchMetrics::register);
        let hub = OrderWatches::new(Arc::clone(&ctx.clock), ctx.drain.clone(), metrics);
        let task = Self {
            hub: hub.clone(),
            orders: Arc::clone(&ctx.store.orders),
            changes: ctx.relay.changes(),
            drain: ctx.drain.clone(),
            due: Instant::now(),
            failing: false,
        };
        (hub, task)
    }

    /// Reads until the process drains. While nobody watches, nothing is read.
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

    /// Takes everything that was said by now; `None` when something was missed.
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

    /// Reads those that are watched, of all or of some, in one statement.
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
                    self.hub.tell(changed);
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.failing, true) {
                        warn!(watched = known.len(), error = ?error, "watched orders cannot be read; watchers wait");
                    }
                }
            }
        }
        if only.is_none() {
            self.due = began + (began.elapsed() * SHARE).clamp(FASTEST, SLOWEST);
        }
    }
}

/// Waits until somebody watches and it is time to read all.
async fn due(hub: &OrderWatches, at: Instant) {
    hub.watched().await;
    sleep_until(at).await;
}
