//! The partitions of this member: what is assigned, queued, running, settled and committed. Pure; `shared` puts it behind a lock.

use std::collections::{HashMap, HashSet, VecDeque};

use minishop_bus::Record;
use minishop_bus::consume::Partition;
use minishop_core::position::Position;

use super::gap::Gap;

/// Records in the queue at which reading pauses.
const MOST_RECORDS: usize = 2048;
/// Bytes in the queue at which reading pauses, and the most bytes of one transaction.
const MOST_BYTES: usize = 32 << 20;
const MOST_BYTES_OF_BATCH: usize = 8 << 20;

/// The processor's next job, in one transaction or a few.
#[derive(Debug)]
pub enum Work {
    Batch(Vec<Record>),
    /// Unreadable records to step over.
    Gap(Gap),
}

/// The partitions of this member and their state.
#[derive(Debug, Default)]
pub struct Assignment {
    owned: HashSet<Partition>,
    /// Partitions whose resume point is not known yet; their records are not processed.
    unchecked: HashSet<Partition>,
    /// Whether partitions were assigned since the poll thread last asked.
    news: bool,
    queue: VecDeque<Record>,
    /// Gaps to step over; each waits until all records before it are settled.
    gaps: Vec<Gap>,
    bytes: usize,
    /// The partitions of the running transaction, without those given up since; `None` when no transaction runs.
    running: Option<HashSet<Partition>>,
    settled: HashMap<Partition, i64>,
    committed: HashMap<Partition, i64>,
    /// The store's position as last read or written; present only for checked partitions with a stored position.
    seen: HashMap<Partition, i64>,
    closed: bool,
}

impl Assignment {
    /// Adds assigned partitions, unchecked.
    pub fn add(&mut self, partitions: &[Partition]) {
        self.news = true;
        self.owned.extend(partitions.iter().cloned());
        self.unchecked.extend(partitions.iter().cloned());
    }

    /// Stops processing partitions; the positions of the running transaction are still committed.
    pub fn stop_processing(&mut self, partitions: &[Partition]) {
        self.owned.retain(|p| !partitions.contains(p));
        self.unchecked.retain(|p| !partitions.contains(p));
        self.gaps.retain(|gap| !partitions.contains(&gap.partition));
        self.drop_queued(|p| partitions.contains(p));
    }

    /// Gives partitions up: drops their queued records, and a running transaction no longer counts for them.
    pub fn forget(&mut self, partitions: &[Partition]) {
        self.stop_processing(partitions);
        self.settled.retain(|p, _| !partitions.contains(p));
        self.committed.retain(|p, _| !partitions.contains(p));
        self.seen.retain(|p, _| !partitions.contains(p));
        if let Some(running) = &mut self.running {
            running.retain(|p| !partitions.contains(p));
        }
    }

    /// Returns whether partitions were assigned since the last call.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// Lists the partitions to check.
    pub fn unchecked(&self) -> Vec<Partition> {
        self.unchecked.iter().cloned().collect()
    }

    /// Marks a partition as checked; reading continues where it was. `stored` is the store's position.
    pub fn checked(&mut self, partition: &Partition, next_offset: i64, stored: Option<i64>) {
        self.unchecked.remove(partition);
        // If it was checked before, its settled offset may not be committed yet.
        if !self.settled.contains_key(partition) {
            self.committed.insert(partition.clone(), next_offset);
        }
        self.seen.remove(partition);
        self.seen.extend(stored.map(|stored| (partition.clone(), stored)));
    }

    /// Marks a partition as checked whose reading moved to `next_offset`: drops its queued records, and its settled offset, which
    /// is not in this store.
    pub fn restart_at(&mut self, partition: &Partition, next_offset: i64, stored: Option<i64>) {
        self.drop_queued(|p| p == partition);
        self.settled.remove(partition);
        self.checked(partition, next_offset, stored);
    }

    /// Marks partitions as unchecked again.
    pub fn check_again(&mut self, of: &[Position]) {
        self.unchecked.extend(self.owned.iter().filter(|p| of.iter().any(|at| is_of(at, p))).cloned());
    }

    /// Marks partitions as unchecked again if the store's position is lower than it was seen.
    pub fn doubt(&mut self, stored: &[Position]) {
        let stands = |p: &Partition| stored.iter().find(|at| is_of(at, p)).map_or(0, |at| at.next_offset);
        let lower = self.seen.iter().filter(|(p, seen)| self.owned.contains(*p) && stands(p) < **seen);
        self.unchecked.extend(lower.map(|(p, _)| p.clone()));
    }

    /// Returns how far this member has read a checked partition, and the store's position as last seen.
    pub fn known(&self, partition: &Partition) -> (Option<i64>, Option<i64>) {
        let read = self.settled.get(partition).or_else(|| self.committed.get(partition));
        (read.copied(), self.seen.get(partition).copied())
    }

    /// Returns the store's positions as last seen.
    pub fn seen_of<'p>(&self, of: impl IntoIterator<Item = &'p Partition>) -> Vec<Position> {
        of.into_iter().filter_map(|p| Some(position(p, *self.seen.get(p)?))).collect()
    }

    /// Returns the partitions of this member, and whether each is checked.
    pub fn partitions(&self) -> HashMap<Partition, bool> {
        self.owned.iter().map(|p| (p.clone(), !self.unchecked.contains(p))).collect()
    }

    /// Queues a gap to step over, once.
    pub fn step_over(&mut self, gap: Gap) {
        if self.owned.contains(&gap.partition) && !self.gaps.contains(&gap) {
            self.gaps.push(gap);
        }
    }

    /// Takes the first gap before which nothing is queued.
    pub fn take_gap(&mut self) -> Option<Gap> {
        let is_next = |gap: &Gap| {
            !self.unchecked.contains(&gap.partition) && !self.queue.iter().any(|record| record.place() == gap.partition)
        };
        let next = self.gaps.iter().position(is_next).filter(|_| !self.closed)?;
        let gap = self.gaps.swap_remove(next);
        self.running = Some(HashSet::from([gap.partition.clone()]));
        Some(gap)
    }

    /// Queues a record, unless its partition is no longer owned.
    pub fn push(&mut self, record: Record) {
        if self.owned.contains(&record.place()) {
            self.bytes += record.size();
            self.queue.push_back(record);
        }
    }

    /// Takes a batch from checked partitions; `None` if there is none.
    pub fn take(&mut self, most: usize) -> Option<Vec<Record>> {
        if self.closed {
            return None;
        }
        let (mut batch, mut bytes, mut passed) = (Vec::new(), 0, VecDeque::new());
        while batch.len() < most
            && let Some(record) = self.queue.pop_front()
        {
            if self.unchecked.contains(&record.place()) {
                passed.push_back(record);
                continue;
            }
            // A record larger than the limit goes alone.
            if !batch.is_empty() && bytes + record.size() > MOST_BYTES_OF_BATCH {
                self.queue.push_front(record);
                break;
            }
            bytes += record.size();
            batch.push(record);
        }
        while let Some(record) = passed.pop_back() {
            self.queue.push_front(record);
        }
        if batch.is_empty() {
            return None;
        }
        self.bytes -= bytes;
        self.running = Some(batch.iter().map(Record::place).collect());
        Some(batch)
    }

    /// Ends a committed transaction.
    pub fn settled(&mut self, positions: &[Position]) {
        let running = self.running.take().unwrap_or_default();
        for position in positions {
            if let Some(partition) = running.iter().find(|p| is_of(position, p)) {
                self.settled.insert(partition.clone(), position.next_offset);
                let seen = self.seen.entry(partition.clone()).or_default();
                *seen = position.next_offset.max(*seen);
            }
        }
    }

    /// Ends a failed transaction: its records return to the front of the queue, except those of partitions no longer owned.
    pub fn put_back(&mut self, batch: Vec<Record>) {
        let running = self.running.take().unwrap_or_default();
        let owned = |record: &Record| running.contains(&record.place()) && self.owned.contains(&record.place());
        let (back, _): (Vec<_>, Vec<_>) = batch.into_iter().partition(owned);
        for record in back.into_iter().rev() {
            self.bytes += record.size();
            self.queue.push_front(record);
        }
    }

    /// Returns the offsets that are settled and not committed, of some partitions or of all.
    pub fn due(&self, of: Option<&[Partition]>) -> Vec<Position> {
        let asked = |p: &&Partition| of.is_none_or(|of| of.contains(p));
        let news = |p: &&Partition, next: &i64| self.committed.get(p) != Some(next);
        let due = self.settled.iter().filter(|(p, next)| asked(p) && news(p, next));
        due.map(|(p, next)| position(p, *next)).collect()
    }

    /// Notes that all settled offsets were sent to the broker.
    pub fn committed(&mut self) {
        self.committed.extend(self.settled.iter().map(|(p, next)| (p.clone(), *next)));
    }

    /// Marks all settled offsets as not committed: a commit failed.
    pub fn commit_failed(&mut self) {
        self.committed.retain(|p, _| !self.settled.contains_key(p));
    }

    /// Returns the group's offset of each partition, as far as known.
    pub fn offsets(&self) -> Vec<(Partition, i64)> {
        self.committed.iter().map(|(p, next)| (p.clone(), *next)).collect()
    }

    /// Returns whether reading should pause.
    pub fn is_full(&self) -> bool {
        self.queue.len() >= MOST_RECORDS || self.bytes >= MOST_BYTES
    }

    /// Returns whether reading should resume.
    pub fn is_half_empty(&self) -> bool {
        self.queue.len() <= MOST_RECORDS / 2 && self.bytes <= MOST_BYTES / 2
    }

    /// Ends the processing: drops the queue; no more batches are taken.
    pub fn close(&mut self) {
        self.closed = true;
        self.drop_queued(|_| true);
    }

    fn drop_queued(&mut self, of: impl Fn(&Partition) -> bool) {
        self.queue.retain(|record| !of(&record.place()));
        self.bytes = self.queue.iter().map(Record::size).sum();
    }

    /// Returns whether the running transaction has one of the `partitions`, or any if `None`.
    pub fn runs_one_of(&self, partitions: Option<&[Partition]>) -> bool {
        let asked = |p: &Partition| partitions.is_none_or(|of| of.contains(p));
        self.running.as_ref().is_some_and(|running| running.iter().any(asked))
    }
}

fn is_of(position: &Position, partition: &Partition) -> bool {
    position.partition == partition.partition && *position.topic == *partition.topic
}

fn position(of: &Partition, next_offset: i64) -> Position {
    Position { topic: of.topic.to_string(), partition: of.partition, next_offset }
}

#[cfg(test)]
mod tests;
