//! Counters of the log, and a snapshot of them for callers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::shared::Shared;
use crate::storage;

/// A monotonic counter.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A flag that is initially true.
#[derive(Debug)]
pub(crate) struct Flag(AtomicBool);

impl Default for Flag {
    fn default() -> Self {
        Self(AtomicBool::new(true))
    }
}

impl Flag {
    pub fn set(&self, holds: bool) {
        self.0.store(holds, Ordering::Relaxed);
    }

    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub accepted: Counter,
    pub refused: Counter,
    pub closed: Counter,
    pub malformed: Counter,
    pub requests: Counter,
    pub commits: Counter,
    pub batches: Counter,
    pub stored_bytes: Counter,
    pub fetched_bytes: Counter,
    pub damaged: Counter,
    pub writable: Flag,
}

/// Reads the log's statistics at any time, also while it runs; cheap to clone.
#[derive(Clone)]
pub struct StatsHandle(pub(crate) Arc<Shared>);

impl StatsHandle {
    /// Returns false while the disk refuses writes.
    pub fn writable(&self) -> bool {
        self.0.counters.writable.get()
    }

    /// Reads all values now, each by itself: they need not belong to one instant.
    pub fn snapshot(&self) -> Stats {
        let counters = &self.0.counters;
        let topics = self.0.catalog.all();
        Stats {
            writable: counters.writable.get(),
            wal_bytes: storage::wal_bytes(&self.0.settings.file),
            connections: counters.accepted.get().saturating_sub(counters.closed.get()),
            connections_total: counters.accepted.get(),
            connections_refused_total: counters.refused.get(),
            malformed_total: counters.malformed.get(),
            requests_total: counters.requests.get(),
            commits_total: counters.commits.get(),
            batches_total: counters.batches.get(),
            stored_bytes_total: counters.stored_bytes.get(),
            fetched_bytes_total: counters.fetched_bytes.get(),
            damaged_batches_total: counters.damaged.get(),
            groups: self.0.groups.count(),
            topics: topics
                .iter()
                .map(|topic| TopicStats {
                    name: topic.name.to_string(),
                    partitions: topic
                        .partitions
                        .iter()
                        .map(|partition| PartitionStats {
                            start_offset: partition.start(),
                            next_offset: partition.next(),
                            bytes: u64::try_from(partition.bytes()).unwrap_or(0),
                        })
                        .collect(),
                })
                .collect(),
        }
    }
}

/// The log's statistics. Values named `…_total` count since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// False while the disk refuses writes; produce then fails with Kafka's error 56.
    pub writable: bool,
    /// Size of the write-ahead log; a checkpoint shrinks it.
    pub wal_bytes: u64,
    pub connections: u64,
    pub connections_total: u64,
    /// Connections closed at once because there were too many.
    pub connections_refused_total: u64,
    /// Connections closed because they sent something that is not a valid request.
    pub malformed_total: u64,
    pub requests_total: u64,
    /// Commits of records and group offsets; at most one fsync each, not counting checkpoints.
    pub commits_total: u64,
    pub batches_total: u64,
    pub stored_bytes_total: u64,
    /// Bytes of record batches sent to consumers.
    pub fetched_bytes_total: u64,
    /// Reads that found a batch with a wrong checksum.
    pub damaged_batches_total: u64,
    /// Consumer groups with members or with member ids that wait for their join.
    pub groups: usize,
    /// All topics, sorted by name.
    pub topics: Vec<TopicStats>,
}

/// Statistics of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicStats {
    pub name: String,
    /// Its partitions, sorted by number.
    pub partitions: Vec<PartitionStats>,
}

/// Statistics of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionStats {
    /// Offset of the oldest record kept.
    pub start_offset: i64,
    /// Offset that the next record will get.
    pub next_offset: i64,
    /// Bytes of the kept batches.
    pub bytes: u64,
}
