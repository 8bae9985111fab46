//! The worker's metrics.

use minishop_bus::consume::Partition;
use minishop_core::parking::{DeadCode, ErrorClass};
use minishop_platform::ctx::{Labels, Metrics};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

/// The label of a partition; a topic has at most some dozen.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PartitionLabel {
    pub topic: String,
    pub partition: i32,
}

/// The worker's metric families.
#[derive(Debug, Clone)]
pub struct WorkerMetrics {
    events: Family<Labels<1>, Counter>,
    dead_letters: Family<Labels<2>, Counter>,
    pub batch: Histogram,
    /// Seconds per transaction.
    pub transaction: Histogram,
    /// Seconds from an event's time until its order is processed.
    pub latency: Histogram,
    /// Partitions whose group offset was ahead of the store.
    pub store_behind_group: Counter,
    /// Records that the log dropped before they were read.
    pub lost_to_retention: Counter,
    /// 1 while reading is paused because the queue to the processor is full.
    pub paused: Gauge,
    unreadable: Family<PartitionLabel, Gauge>,
    lag: Family<PartitionLabel, Gauge>,
}

impl WorkerMetrics {
    /// Registers the families; call once per process.
    pub fn register(metrics: &Metrics) -> Self {
        Self {
            events: metrics.register("worker_events", "Events by outcome"),
            dead_letters: metrics.register("worker_dead_letters", "Dead letters by class and code"),
            batch: metrics.histogram("worker_batch_records", "Records in one transaction", 1.0, 10),
            transaction: metrics.histogram("worker_transaction_duration_seconds", "Duration of one transaction", 0.0005, 14),
            latency: metrics.histogram(
                "worker_created_to_processed_duration_seconds",
                "Time from the event to its settlement",
                0.001,
                16,
            ),
            store_behind_group: metrics.register(
                "worker_store_behind_group",
                "Times that the store was behind a partition's offset, as after a restore or a fail-over to an older copy",
            ),
            lost_to_retention: metrics
                .register("worker_records_lost_to_retention", "Records that retention deleted before they were read"),
            paused: metrics.register("worker_reading_paused", "1 while reading is paused: the processor is behind"),
            unreadable: metrics.register("worker_partition_unreadable", "1 for a partition that waits at unreadable records"),
            lag: metrics.register("worker_consumer_lag_records", "Records not yet committed by the group"),
        }
    }

    /// Counts an event by its outcome: `processed`, `ignored`, `duplicate`, `copy`, `held`, `parked`, `queued` or `dead`.
    pub fn event(&self, outcome: &'static str) {
        self.events.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Counts a dead letter.
    pub fn dead_letter(&self, class: ErrorClass, code: DeadCode) {
        self.dead_letters.get_or_create(&[("class", class.as_str()), ("code", code.as_str())]).inc();
    }

    /// Sets the consumer lag of a partition: records not yet committed by the group.
    pub fn lag(&self, partition: &Partition, records: i64) {
        self.lag.get_or_create(&place(partition)).set(records);
    }

    /// Replaces the set of partitions that are blocked at unreadable records.
    pub fn unreadable<'p>(&self, partitions: impl Iterator<Item = &'p Partition>) {
        self.unreadable.clear();
        for partition in partitions {
            self.unreadable.get_or_create(&place(partition)).set(1);
        }
    }

    /// Drops the lag gauges of partitions that another member reads now.
    pub fn gone(&self, partitions: &[Partition]) {
        for partition in partitions {
            self.lag.remove(&place(partition));
        }
    }
}

fn place(partition: &Partition) -> PartitionLabel {
    PartitionLabel { topic: partition.topic.to_string(), partition: partition.partition }
}
