//! The newest batches in memory, so that consumers at the end of the log need no SQLite read.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

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
    /// Returns whole batches in the offset `range`, up to `limit` bytes; with `one_anyway` the first one even if it is
    /// larger. `None` if the range begins before the tail.
    ///
    /// `range` must not exceed the partition's end. Later batches may be cached but not yet visible: a consumer that read
    /// them would next request an offset that does not exist.
    pub fn read(&self, range: Range<i64>, limit: usize, one_anyway: bool) -> Option<Vec<Bytes>> {
        if self.0.front()?.base > range.start {
            return None;
        }
        let first = self.0.partition_point(|kept| kept.last < range.start);
        let mut room = limit;
        let mut found = Vec::new();
        for kept in self.0.range(first..).take_while(|kept| kept.last < range.end) {
            if kept.bytes.len() > room && !(one_anyway && found.is_empty()) {
                break;
            }
            room = room.saturating_sub(kept.bytes.len());
            found.push(kept.bytes.clone());
        }
        Some(found)
    }
}

/// Insertion order of the cached batches, so that the oldest of all partitions is dropped first. Owned by the writer.
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

    /// Clears the cache, as after an error that left the file's content unknown.
    pub fn clear(&mut self) {
        for (partition, _) in self.queue.drain(..) {
            lock(&partition.tail).0.clear();
        }
        self.held = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(limit: usize) -> (TailQueue, Arc<Partition>) {
        let partition = Arc::new(Partition::new(1, 0, 0, 0, 0));
        let mut queue = TailQueue::new(limit);
        for n in 0..5 {
            queue.push(&partition, n * 2, n * 2 + 1, Bytes::from_static(b"0123456789"));
        }
        (queue, partition)
    }

    fn count(partition: &Partition, range: Range<i64>, limit: usize, one_anyway: bool) -> Option<usize> {
        lock(&partition.tail).read(range, limit, one_anyway).map(|found| found.len())
    }

    #[test]
    fn what_is_not_shown_yet_is_not_read() {
        let (_queue, partition) = filled(1_000);
        assert_eq!(count(&partition, 0..10, 1_000, true), Some(5));
        assert_eq!(count(&partition, 0..8, 1_000, true), Some(4));
        assert_eq!(count(&partition, 3..4, 1_000, true), Some(1), "the batch that holds the offset");
        assert_eq!(count(&partition, 10..10, 1_000, true), Some(0));
    }

    #[test]
    fn a_read_keeps_to_its_limit_but_for_one_batch() {
        let (_queue, partition) = filled(1_000);
        assert_eq!(count(&partition, 0..10, 29, false), Some(2));
        assert_eq!(count(&partition, 0..10, 9, true), Some(1));
        assert_eq!(count(&partition, 0..10, 9, false), Some(0));
    }

    #[test]
    fn the_oldest_leave_first() {
        let (mut queue, partition) = filled(30);
        assert_eq!(count(&partition, 3..10, 1_000, true), None, "gone from memory");
        assert_eq!(count(&partition, 4..10, 1_000, true), Some(3));
        queue.clear();
        assert_eq!(count(&partition, 4..10, 1_000, true), None);
    }
}
