//! The watches of this process.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use minishop_core::clock::{Clock, Timestamp};
use minishop_core::ids::OrderId;
use minishop_core::refusal::Refusal;
use minishop_store::{Changed, OrderRow};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::metrics::WatchMetrics;
use crate::refusals;

/// Maximum number of watches in a process.
pub const MOST_WATCHES: usize = 10_000;

/// The watches of a process. Cheap to clone.
///
/// Holds the known version of each watched order, and its row only after a change: the poll reads all watched orders in one
/// statement and passes changes to their watches.
#[derive(Debug, Clone)]
pub struct OrderWatches {
    state: Arc<Mutex<State>>,
    subscribed: Arc<Notify>,
    clock: Arc<dyn Clock>,
    drain: CancellationToken,
    pub(super) metrics: WatchMetrics,
}

#[derive(Debug, Default)]
struct State {
    orders: HashMap<OrderId, Watched>,
    watches: usize,
}

#[derive(Debug)]
struct Watched {
    /// The greatest version that this process has seen; the poll asks for greater ones.
    known: i32,
    watches: usize,
    news: watch::Sender<Option<Arc<Changed>>>,
}

/// A watch on one order. Ends when dropped.
#[derive(Debug)]
pub struct Subscription {
    hub: OrderWatches,
    order: OrderId,
    news: watch::Receiver<Option<Arc<Changed>>>,
}

impl OrderWatches {
    pub(super) fn new(clock: Arc<dyn Clock>, drain: CancellationToken, metrics: WatchMetrics) -> Self {
        Self { state: Arc::default(), subscribed: Arc::default(), clock, drain, metrics }
    }

    /// Subscribes to an order. Refuses, with the wait `again`, during a drain and beyond [`MOST_WATCHES`].
    pub fn subscribe(&self, order: OrderId, again: Duration) -> Result<Subscription, Refusal> {
        if self.drain.is_cancelled() {
            return Err(refusals::watch_ended(again));
        }
        let mut state = self.lock();
        if state.watches >= MOST_WATCHES {
            return Err(refusals::too_many_watches(again));
        }
        state.watches += 1;
        self.metrics.watching(state.watches);
        let new = || Watched { known: 0, watches: 0, news: watch::Sender::new(None) };
        let watched = state.orders.entry(order).or_insert_with(new);
        watched.watches += 1;
        let news = watched.news.subscribe();
        self.subscribed.notify_one();
        Ok(Subscription { hub: self.clone(), order, news })
    }

    /// Waits until an order is watched.
    pub(super) async fn watched(&self) {
        loop {
            let subscribed = self.subscribed.notified();
            if !self.lock().orders.is_empty() {
                return;
            }
            subscribed.await;
        }
    }

    /// Lists the watched orders, all or those in `only`, with their known versions.
    pub(super) fn known(&self, only: Option<&HashSet<OrderId>>) -> Vec<(OrderId, i32)> {
        let state = self.lock();
        match only {
            None => state.orders.iter().map(|(order, watched)| (*order, watched.known)).collect(),
            Some(only) => only.iter().filter_map(|order| Some((*order, state.orders.get(order)?.known))).collect(),
        }
    }

    /// Passes changed orders to their watches.
    pub(super) fn deliver(&self, changed: Vec<Changed>) {
        let mut state = self.lock();
        for changed in changed {
            if let Some(watched) = state.orders.get_mut(&changed.order.head.order_id) {
                watched.known = watched.known.max(changed.order.version);
                watched.news.send_replace(Some(Arc::new(changed)));
            }
        }
    }

    fn leave(&self, order: OrderId) {
        let mut state = self.lock();
        state.watches -= 1;
        self.metrics.watching(state.watches);
        let Some(watched) = state.orders.get_mut(&order) else { return };
        watched.watches -= 1;
        if watched.watches == 0 {
            state.orders.remove(&order);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the watches panics")
    }
}

impl Subscription {
    /// Records the row that was read for this watch. A version that is new to the hub is passed on to the order's other watches,
    /// since the poll asks only for newer ones.
    pub fn know(&self, order: &OrderRow) {
        let mut state = self.hub.lock();
        let Some(watched) = state.orders.get_mut(&self.order) else { return };
        if watched.known >= order.version {
            return;
        }
        watched.known = order.version;
        if watched.watches > 1 {
            watched.news.send_replace(Some(Arc::new(Changed { order: order.clone(), at: None })));
        }
    }

    /// Waits for a version above `seen`; `None` when the process drains. Cancel-safe.
    pub async fn next(&mut self, seen: i32) -> Option<Arc<Changed>> {
        let newer = |news: &Option<Arc<Changed>>| news.as_ref().is_some_and(|changed| changed.order.version > seen);
        tokio::select! {
            biased;
            () = self.hub.drain.cancelled() => None,
            // The hub keeps the sender for as long as this watch lives.
            news = self.news.wait_for(newer) => news.ok().and_then(|news| news.clone()),
        }
    }

    /// Counts a version that was sent, and observes its latency since `changed_at`.
    pub fn delivered(&self, changed_at: Option<Timestamp>) {
        let late = changed_at.map(|at| self.hub.clock.now().signed_duration_since(at).to_std().unwrap_or_default());
        self.hub.metrics.delivered(late);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hub.leave(self.order);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use minishop_core::clock::{ManualClock, from_millis};
    use minishop_core::idempotency::IdempotencyKey;
    use minishop_core::ids::{ClientId, CorrelationId};
    use minishop_core::order::Status;
    use minishop_core::order_head::OrderHead;
    use minishop_core::refusal::Code;
    use minishop_platform::ctx::Metrics;
    use uuid::Uuid;

    fn hub() -> OrderWatches {
        let clock = Arc::new(ManualClock::at(from_millis(0)));
        OrderWatches::new(clock, CancellationToken::new(), WatchMetrics::register(&Metrics::default()))
    }

    fn id(n: u128) -> OrderId {
        OrderId(Uuid::from_u128(n))
    }

    fn row(n: u128, version: i32) -> OrderRow {
        OrderRow {
            head: OrderHead {
                order_id: id(n),
                client_id: ClientId::anonymous(),
                customer_id: "c1".into(),
                key: IdempotencyKey::parse("k").unwrap(),
                correlation_id: CorrelationId::parse("c").unwrap(),
                currency: None,
                total_minor: 0,
                created_at: from_millis(0),
            },
            status: if version == 1 { Status::Created } else { Status::Processed },
            version,
            items: "[]".into(),
        }
    }

    fn watching(hub: &OrderWatches, n: u128, version: i32) -> Subscription {
        let watch = hub.subscribe(id(n), Duration::ZERO).unwrap();
        watch.know(&row(n, version));
        watch
    }

    fn changed(n: u128, version: i32) -> Vec<Changed> {
        vec![Changed { order: row(n, version), at: None }]
    }

    /// Returns the version above `seen` that is available without waiting.
    fn next_version(watch: &mut Subscription, seen: i32) -> Option<i32> {
        watch.next(seen).now_or_never().flatten().map(|changed| changed.order.version)
    }

    #[test]
    fn everybody_who_watches_an_order_is_told_once_and_nobody_else() {
        let hub = hub();
        let (mut one, mut two, mut other) = (watching(&hub, 1, 1), watching(&hub, 1, 1), watching(&hub, 2, 1));
        assert_eq!(next_version(&mut one, 1), None, "nothing has happened");
        hub.deliver(changed(1, 2));
        hub.deliver(changed(7, 2));
        assert_eq!((next_version(&mut one, 1), next_version(&mut two, 1)), (Some(2), Some(2)));
        assert_eq!(next_version(&mut one, 2), None, "no repeat");
        assert_eq!(next_version(&mut other, 1), None);
    }

    #[test]
    fn what_a_newcomer_reads_is_told_to_those_who_wait_already() {
        let hub = hub();
        let mut first = watching(&hub, 1, 1);
        let _newcomer = watching(&hub, 1, 2);
        assert_eq!(hub.known(None), [(id(1), 2)], "the poll asks for what is newer");
        assert_eq!(next_version(&mut first, 1), Some(2));
    }

    #[test]
    fn an_order_is_forgotten_with_its_last_watch() {
        let hub = hub();
        let (one, two) = (watching(&hub, 1, 1), watching(&hub, 1, 1));
        let other = watching(&hub, 2, 1);
        drop(one);
        let mut known = hub.known(None);
        known.sort();
        assert_eq!(known, [(id(1), 1), (id(2), 1)]);
        assert_eq!(hub.known(Some(&HashSet::from([id(2), id(3)]))), [(id(2), 1)]);
        drop((two, other));
        assert_eq!((hub.known(None), hub.lock().watches), (Vec::new(), 0));
        assert!(hub.watched().now_or_never().is_none(), "nobody watches");
    }

    #[test]
    fn one_watch_too_many_is_refused_until_another_ends() {
        let hub = hub();
        let mut watches: Vec<_> = (0..MOST_WATCHES as u128).map(|n| hub.subscribe(id(n), Duration::ZERO).unwrap()).collect();
        let refused = hub.subscribe(id(0), Duration::from_secs(1)).unwrap_err();
        assert_eq!((refused.code, refused.retry_after), (Code::Overloaded, Some(Duration::from_secs(1))));
        watches.pop();
        assert!(hub.subscribe(id(0), Duration::ZERO).is_ok());
    }

    #[test]
    fn the_drain_ends_watches_and_takes_no_more() {
        let hub = hub();
        let mut watch = watching(&hub, 1, 1);
        hub.drain.cancel();
        assert_eq!(watch.next(1).now_or_never(), Some(None));
        assert_eq!(hub.subscribe(id(1), Duration::ZERO).unwrap_err().code, Code::ShuttingDown);
    }
}
