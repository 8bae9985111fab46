//! The newest batches in memory, so that consumers at the end of the log do not ask SQLite.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;

use crate::catalog::{Partition, lock};

#[derive(Debug)]
struct Kept {
    base: i64,
    last: i64,
    bytes: Bytes,
}

/// The newest batches of one partition, without gaps.
#[derive(Debug, Default)]
pub(crate) struct Tail(VecDeque<Kept>);

impl Tail {
    /// Returns whole batches from the one that holds `offset`, up to `limit` bytes; with `one_anyway` the first even
    /// if it is larger. `None` when `offset` is older than the tail.
    pub fn read(&self, offset: i64, limit: usize, one_anyway: bool) -> Option<Vec<Bytes>> {
        if self.0.front()?.base > offset {
            return None;
        }
        let first = self.0.partition_point(|kept| kept.last < offset);
        let mut room = limit;
        let mut found = Vec::new();
        for kept in self.0.range(first..) {
            if kept.bytes.len() > room && !(one_anyway && found.is_empty()) {
                break;
            }
            room = room.saturating_sub(kept.bytes.len());
            found.push(kept.bytes.clone());
        }
        Some(found)
    }
}

/// The order in which batches joined the tails, so that the oldest of all partitions leaves first. Owned by the writer.
#[derive(Debug)]
pub(crate) struct TailQueue {
    limit: usize,
    held: usize,
    queue: VecDeque<(Arc<Partition>, usize)>,
}

impl TailQueue {
    pub fn new(limit: usize) -> Self {
        Self { limit, held: 0, queue: VecDeque::new() }
    }

    /// Adds a batch that was just committed and drops the oldest ones beyond the limit.
    pub fn push(&mut self, partition: &Arc<Partition>, base: i64, last: i64, bytes: Bytes) {
        self.held += bytes.len();
        self.queue.push_back((Arc::clone(partition), bytes.len()));
        lock(&partition.tail).0.push_back(Kept { base, last, bytes });
        while self.held > self.limit {
            let Some((partition, size)) = self.queue.pop_front() else {
                break;
            };
            self.held -= size;
            lock(&partition.tail).0.pop_front();
        }
    }

    /// Forgets everything, as after an error that left it unknown what the file holds.
    pub fn clear(&mut self) {
        for (partition, _) in self.queue.drain(..) {
            lock(&partition.tail).0.clear();
        }
        self.held = 0;
    }
}
