//! The context of every role: the outside world as arguments.

mod commits;

use std::fmt;
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use minishop_core::clock::Clock;
use minishop_core::ids::Ids;
use minishop_store::Store;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::hints::Changes;
use crate::relay::Relay;
pub use commits::Commits;

/// The outside world of one process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ctx {
    pub config: Arc<Config>,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn Ids>,
    pub store: Store,
    /// Bootstrap servers of the event log, embedded or not.
    pub brokers: String,
    /// Publishes committed outbox rows.
    pub relay: Relay,
    /// The orders that have just changed, for their watchers.
    pub changes: Changes,
    pub metrics: Metrics,
    /// Cancelled when the process drains: take no new work, finish what runs, return.
    pub drain: CancellationToken,
    /// Bound addresses and the health of each part.
    pub status: Status,
}

impl Ctx {
    /// Returns where to report commits of outbox rows.
    pub fn commits(&self) -> Commits {
        Commits::new(self.relay.clone(), self.changes.clone())
    }
}

/// Named work that boot spawns, watches and drains. Returning before `drain` is cancelled is a fault.
pub struct Task {
    pub name: &'static str,
    pub run: BoxFuture<'static, anyhow::Result<()>>,
}

impl Task {
    /// Creates a task.
    pub fn new(name: &'static str, run: impl Future<Output = anyhow::Result<()>> + Send + 'static) -> Self {
        Self { name, run: Box::pin(run) }
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Labels of a metric: names and values. Values come from closed lists only.
pub type Labels<const N: usize> = [(&'static str, &'static str); N];

/// The process's metrics, prefixed `minishop`. Each component registers its families once.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl Default for Metrics {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Registry::with_prefix("minishop"))))
    }
}

impl Metrics {
    /// Registers a new family and returns it. Call once per name and process.
    pub fn register<M: Metric + Clone + Default>(&self, name: &str, help: &str) -> M {
        self.register_as(name, help, M::default())
    }

    /// Registers a family that has no default, such as a histogram, and returns it.
    pub fn register_as<M: Metric + Clone>(&self, name: &str, help: &str, family: M) -> M {
        self.with(|registry| registry.register(name, help, family.clone()));
        family
    }

    /// Registers a histogram of so many buckets, each twice as wide as the one before, and returns it.
    pub fn histogram(&self, name: &str, help: &str, first_bucket: f64, buckets: u16) -> Histogram {
        self.register_as(name, help, Histogram::new(exponential_buckets(first_bucket, 2.0, buckets)))
    }

    /// Calls `use_it` with the registry, to encode it.
    pub fn with<R>(&self, use_it: impl FnOnce(&mut Registry) -> R) -> R {
        use_it(&mut self.0.lock().expect("no holder of the registry panics"))
    }
}

/// What the process reports about itself: bound addresses, and the health of its parts.
#[derive(Debug, Clone, Default)]
pub struct Status(Arc<Mutex<StatusInner>>);

#[derive(Debug, Default)]
struct StatusInner {
    addresses: Vec<(&'static str, std::net::SocketAddr)>,
    parts: Vec<(&'static str, Result<(), String>)>,
    notes: Vec<(&'static str, String)>,
}

impl Status {
    /// Adds a bound listener, such as `http`, for the ready line.
    pub fn bound(&self, name: &'static str, addr: std::net::SocketAddr) {
        self.lock().addresses.push((name, addr));
    }

    /// Returns the bound listeners in the order of [`Status::bound`].
    pub fn addresses(&self) -> Vec<(&'static str, std::net::SocketAddr)> {
        self.lock().addresses.clone()
    }

    /// Sets whether a part works, or why not. The process is ready while every part works.
    pub fn set(&self, part: &'static str, state: Result<(), String>) {
        let mut inner = self.lock();
        match inner.parts.iter_mut().find(|(name, _)| *name == part) {
            Some(known) => known.1 = state,
            None => inner.parts.push((part, state)),
        }
    }

    /// Sets or clears (`None`) a remark on a part that the process can work without.
    pub fn note(&self, part: &'static str, reason: Option<String>) {
        let mut inner = self.lock();
        inner.notes.retain(|(name, _)| *name != part);
        inner.notes.extend(reason.map(|reason| (part, reason)));
    }

    /// Lists the notes.
    pub fn notes(&self) -> Vec<(&'static str, String)> {
        self.lock().notes.clone()
    }

    /// Lists the parts and their states.
    pub fn parts(&self) -> Vec<(&'static str, Result<(), String>)> {
        self.lock().parts.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, StatusInner> {
        self.0.lock().expect("no holder of the status panics")
    }
}
