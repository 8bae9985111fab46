//! The relay's metrics.

use std::sync::atomic::AtomicU64;

use minishop_store::OutboxStats;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::ctx::Metrics;

#[derive(Debug, Clone)]
pub(super) struct RelayMetrics {
    /// Records that the broker has acknowledged; duplicates count again.
    pub published: Counter,
    /// Records that the broker or the client refused; they are sent again.
    pub refused: Counter,
    /// Seconds from the hand-over to the client library to the broker's acknowledgement.
    pub publish: Histogram,
    pub shards: Gauge,
    pub set_aside: Counter,
    /// How often a shard was found to be an older copy of itself.
    pub went_back: Counter,
    /// How often a number was missing.
    pub gaps: Counter,
    rows: Gauge,
    oldest: Gauge<f64, AtomicU64>,
}

impl RelayMetrics {
    /// Registers the families; call once per process.
    pub fn register(metrics: &Metrics) -> Self {
        Self {
            published: metrics.register("relay_published", "Records that the broker has acknowledged"),
            refused: metrics.register("relay_refused", "Records that were refused and are sent again"),
            publish: metrics.register_as(
                "relay_publish_duration_seconds",
                "Time from sending to acknowledgement",
                Histogram::new(exponential_buckets(0.001, 2.0, 16)),
            ),
            shards: metrics.register("relay_led_shards", "Outbox shards that this process leads"),
            set_aside: metrics.register("outbox_set_aside", "Events that cannot be published and were set aside"),
            went_back: metrics.register("outbox_went_back", "Times that the store went back to an older state"),
            gaps: metrics.register("outbox_gaps", "Times that numbers were missing in the outbox"),
            rows: metrics.register("outbox_rows", "Events of all processes that wait to be published"),
            oldest: metrics.register("outbox_oldest_age_seconds", "Age of the oldest event that waits to be published"),
        }
    }

    /// Records the backlog.
    pub fn measured(&self, stats: OutboxStats) {
        self.rows.set(stats.depth);
        self.oldest.set(stats.oldest.as_secs_f64());
    }
}
