//! What the worker counts.

use minishop_platform::ctx::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// One label from a closed set.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Settled {
    /// What became of the event.
    pub outcome: &'static str,
}

/// A kind of dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Dead {
    /// The class.
    pub class: &'static str,
    /// The code.
    pub code: &'static str,
}

/// The worker's metric families.
#[derive(Debug, Clone)]
pub struct WorkerMetrics {
    /// Events by what became of them.
    pub events: Family<Settled, Counter>,
    /// Dead letters by class and code.
    pub dead_letters: Family<Dead, Counter>,
    /// Records in one transaction.
    pub batch: Histogram,
    /// Seconds of one transaction.
    pub transaction: Histogram,
    /// Seconds from the event's time to its settlement.
    pub latency: Histogram,
}

impl WorkerMetrics {
    /// Registers the families; call once a process.
    pub fn register(metrics: &Metrics) -> Self {
        let new = Self {
            events: Family::default(),
            dead_letters: Family::default(),
            batch: Histogram::new(exponential_buckets(1.0, 2.0, 10)),
            transaction: Histogram::new(exponential_buckets(0.0005, 2.0, 14)),
            latency: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
        };
        metrics.with(|registry| {
            registry.register("worker_events", "Events by what became of them", new.events.clone());
            registry.register("worker_dead_letters", "Dead letters by class and code", new.dead_letters.clone());
            registry.register("worker_batch_records", "Records in one transaction", new.batch.clone());
            registry.register("worker_transaction_seconds", "Time of one transaction", new.transaction.clone());
            registry.register(
                "worker_created_to_processed_seconds",
                "Time from the event to its settlement",
                new.latency.clone(),
            );
        });
        new
    }
}
