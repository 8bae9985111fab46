//! The metrics of watches.

use std::time::Duration;

use minishop_platform::ctx::{Labels, Metrics};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

/// The metrics. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WatchMetrics {
    watches: Gauge,
    delivered: Counter,
    polls: Family<Labels<2>, Counter>,
    poll_seconds: Histogram,
    late: Histogram,
}

impl WatchMetrics {
    /// Registers the metrics.
    pub fn register(metrics: &Metrics) -> Self {
        Self {
            watches: metrics.register("api_watches", "Open watches of orders"),
            delivered: metrics.register("api_watch_events", "Order versions sent to watchers"),
            polls: metrics.register("api_watch_polls", "Reads of watched orders, by trigger and outcome"),
            poll_seconds: metrics.histogram(
                "api_watch_poll_duration_seconds",
                "Duration of one read of watched orders",
                0.000_25,
                14,
            ),
            late: metrics.histogram(
                "api_watch_delivery_duration_seconds",
                "Time from an order's change until a watcher gets it",
                0.001,
                14,
            ),
        }
    }

    /// Sets the number of watches.
    pub(super) fn watching(&self, watches: usize) {
        self.watches.set(i64::try_from(watches).unwrap_or(i64::MAX));
    }

    /// Counts a version that was sent, and observes its latency.
    pub(super) fn delivered(&self, late: Option<Duration>) {
        self.delivered.inc();
        if let Some(late) = late {
            self.late.observe(late.as_secs_f64());
        }
    }

    /// Counts a read, and observes its duration.
    pub(super) fn polled(&self, by: &'static str, done: bool, took: Duration) {
        self.polls.get_or_create(&[("by", by), ("outcome", if done { "ok" } else { "failed" })]).inc();
        self.poll_seconds.observe(took.as_secs_f64());
    }
}
