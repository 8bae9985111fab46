//! What the poll thread and the processor share: the partitions, the queue, and how far each partition is settled.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::process::gap::Gap;
use minishop_platform::bus::Record;
use minishop_platform::bus::consume::Partition;
use minishop_platform::store::Position;
use tokio::sync::Notify;

/// Records that may wait for the processor.
const MOST_RECORDS: usize = 2048;
/// Bytes that may wait for the processor, and that one transaction takes.
const MOST_BYTES: usize = 32 << 20;
const MOST_BYTES_OF_BATCH: usize = 8 << 20;

/// What the processor does next, in one transaction or a few.
#[derive(Debug)]
pub enum Work {
    /// Settles records.
    Batch(Vec<Record>),
    /// Steps over records that cannot be read.
    Gap(Gap),
}

/// The partitions of this member and everything that is known of them.
#[derive(Debug, Default)]
pub struct Assignment {
    owned: HashSet<Partition>,
    /// Partitions of which it is not known yet where they must be read from. Until it is, nothing of them is processed.
    unchecked: HashSet<Partition>,
    /// Whether partitions have come since the poll thread looked.
    news: bool,
    queue: VecDeque<Record>,
    /// What is to be stepped over once all before it is settled.
    gaps: Vec<Gap>,
    bytes: usize,
    /// The partitions of the running transaction, without those that have gone meanwhile; `None` when none runs.
    running: Option<HashSet<Partition>>,
    settled: HashMap<Partition, i64>,
    committed: HashMap<Partition, i64>,
    /// Where the store stood when it was last looked at or written to, of checked partitions in which it has settled anything.
    seen: HashMap<Partition, i64>,
    closed: bool,
}

impl Assignment {
    /// Takes partitions up; they wait to be checked.
    pub fn come(&mut self, partitions: &[Partition]) {
        self.news = true;
        self.owned.extend(partitions.iter().cloned());
        self.unchecked.extend(partitions.iter().cloned());
    }

    /// Stops the processing of partitions; a transaction that already runs still counts.
    pub fn stop(&mut self, partitions: &[Partition]) {
        self.owned.retain(|p| !partitions.contains(p));
        self.unchecked.retain(|p| !partitions.contains(p));
        self.gaps.retain(|gap| !partitions.contains(&gap.partition));
        self.drop_queued(|p| partitions.contains(p));
    }

    /// Gives partitions up: what is queued of them is dropped, and nothing that still runs counts any more.
    pub fn go(&mut self, partitions: &[Partition]) {
        self.stop(partitions);
        self.settled.retain(|p, _| !partitions.contains(p));
        self.committed.retain(|p, _| !partitions.contains(p));
        self.seen.retain(|p, _| !partitions.contains(p));
        if let Some(running) = &mut self.running {
            running.retain(|p| !partitions.contains(p));
        }
    }

    /// Tells whether partitions have come since the last call.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// Tells which partitions wait to be checked.
    pub fn unchecked(&self) -> Vec<Partition> {
        self.unchecked.iter().cloned().collect()
    }

    /// Ends the check of a partition that is read on; `stored` is where the store stands.
    pub fn checked(&mut self, partition: &Partition, next_offset: i64, stored: Option<i64>) {
        self.unchecked.remove(partition);
        // Of one that was checked before, what is settled may not be committed yet.
        if !self.settled.contains_key(partition) {
            self.committed.insert(partition.clone(), next_offset);
        }
        self.seen.remove(partition);
        self.seen.extend(stored.map(|stored| (partition.clone(), stored)));
    }

    /// Ends the check of a partition that is read from elsewhere now: what is queued came from where it was read before, and what
    /// was settled there is not in this store.
    pub fn moved(&mut self, partition: &Partition, next_offset: i64, stored: Option<i64>) {
        self.drop_queued(|p| p == partition);
        self.settled.remove(partition);
        self.checked(partition, next_offset, stored);
    }

    /// Has partitions checked once more.
    pub fn check_again(&mut self, of: &[Position]) {
        self.unchecked.extend(self.owned.iter().filter(|p| of.iter().any(|at| is_of(at, p))).cloned());
    }

    /// Has all partitions checked once more in which the store stands lower than it was seen to stand.
    pub fn doubt(&mut self, stored: &[Position]) {
        let stands = |p: &Partition| stored.iter().find(|at| is_of(at, p)).map_or(0, |at| at.next_offset);
        let lower = self.seen.iter().filter(|(p, seen)| self.owned.contains(*p) && stands(p) < **seen);
        self.unchecked.extend(lower.map(|(p, _)| p.clone()));
    }

    /// Tells how far this member has read a partition that it has checked before, and where it saw the store stand.
    pub fn known(&self, partition: &Partition) -> (Option<i64>, Option<i64>) {
        let read = self.settled.get(partition).or_else(|| self.committed.get(partition));
        (read.copied(), self.seen.get(partition).copied())
    }

    /// Tells where the store was seen to stand in partitions.
    fn seen_of<'p>(&self, of: impl IntoIterator<Item = &'p Partition>) -> Vec<Position> {
        of.into_iter().filter_map(|p| Some(position(p, *self.seen.get(p)?))).collect()
    }

    /// Lists the partitions of this member, and whether it is known where they are read from.
    pub fn partitions(&self) -> HashMap<Partition, bool> {
        self.owned.iter().map(|p| (p.clone(), !self.unchecked.contains(p))).collect()
    }

    /// Has records stepped over that cannot be read.
    pub fn step_over(&mut self, gap: Gap) {
        if self.owned.contains(&gap.partition) && !self.gaps.contains(&gap) {
            self.gaps.push(gap);
        }
    }

    /// Takes what is to be stepped over next: all before it is settled.
    fn take_gap(&mut self) -> Option<Gap> {
        let is_next = |gap: &Gap| {
            !self.unchecked.contains(&gap.partition) && !self.queue.iter().any(|record| record.place() == gap.partition)
        };
        let next = self.gaps.iter().position(is_next).filter(|_| !self.closed)?;
        let gap = self.gaps.swap_remove(next);
        self.running = Some(HashSet::from([gap.partition.clone()]));
        Some(gap)
    }

    /// Queues a record; one of a partition that has gone is dropped.
    pub fn push(&mut self, record: Record) {
        if self.owned.contains(&record.place()) {
            self.bytes += record.size();
            self.queue.push_back(record);
        }
    }

    /// Takes a batch of checked partitions; `None` while there is none.
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
            // A record larger than the bound goes alone.
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

    /// Ends a transaction that is committed.
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

    /// Ends a transaction that failed: its records are the first in the queue again, but for those whose partition has gone.
    pub fn put_back(&mut self, batch: Vec<Record>) {
        let running = self.running.take().unwrap_or_default();
        let owned = |record: &Record| running.contains(&record.place()) && self.owned.contains(&record.place());
        let (back, _): (Vec<_>, Vec<_>) = batch.into_iter().partition(owned);
        for record in back.into_iter().rev() {
            self.bytes += record.size();
            self.queue.push_front(record);
        }
    }

    /// Tells what is settled and not committed, of some partitions or of all.
    pub fn due(&self, of: Option<&[Partition]>) -> Vec<Position> {
        let asked = |p: &&Partition| of.is_none_or(|of| of.contains(p));
        let news = |p: &&Partition, next: &i64| self.committed.get(p) != Some(next);
        let due = self.settled.iter().filter(|(p, next)| asked(p) && news(p, next));
        due.map(|(p, next)| position(p, *next)).collect()
    }

    /// Notes that everything settled was handed to the broker.
    pub fn committed(&mut self) {
        self.committed.extend(self.settled.iter().map(|(p, next)| (p.clone(), *next)));
    }

    /// Forgets what was handed to the broker, since it did not arrive.
    pub fn commit_failed(&mut self) {
        self.committed.retain(|p, _| !self.settled.contains_key(p));
    }

    /// Tells the group's offset of each partition, as far as it is known.
    pub fn offsets(&self) -> Vec<(Partition, i64)> {
        self.committed.iter().map(|(p, next)| (p.clone(), *next)).collect()
    }

    /// Tells whether no more should be read for now.
    pub fn is_full(&self) -> bool {
        self.queue.len() >= MOST_RECORDS || self.bytes >= MOST_BYTES
    }

    /// Tells whether reading pays again.
    pub fn is_half_empty(&self) -> bool {
        self.queue.len() <= MOST_RECORDS / 2 && self.bytes <= MOST_BYTES / 2
    }

    /// Ends the processing: no batch is taken any more.
    pub fn close(&mut self) {
        self.closed = true;
        self.drop_queued(|_| true);
    }

    fn drop_queued(&mut self, of: impl Fn(&Partition) -> bool) {
        self.queue.retain(|record| !of(&record.place()));
        self.bytes = self.queue.iter().map(Record::size).sum();
    }

    fn runs_one_of(&self, partitions: Option<&[Partition]>) -> bool {
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

/// The assignment, with what wakes those who wait for it.
#[derive(Debug)]
pub struct Shared {
    state: Mutex<Assignment>,
    /// Wakes the poll thread: a transaction has ended, or the queue has room.
    changed: Condvar,
    /// Wakes the processor.
    records: Notify,
    polled_at: Mutex<Instant>,
}

impl Shared {
    /// Makes an assignment without partitions.
    pub fn new() -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), records: Notify::new(), polled_at: Mutex::new(Instant::now()) }
    }

    /// Locks the assignment.
    pub fn lock(&self) -> MutexGuard<'_, Assignment> {
        self.state.lock().expect("no holder of the assignment panics")
    }

    /// Says that records wait, or that partitions may be processed now.
    pub fn wake(&self) {
        self.records.notify_one();
    }

    /// Waits for work; tells also where the store was seen to stand in its partitions. One caller at a time.
    pub async fn next(&self, most: usize) -> (Work, Vec<Position>) {
        loop {
            let work = {
                let mut state = self.lock();
                let gap = state.take_gap().map(|gap| (state.seen_of([&gap.partition]), Work::Gap(gap)));
                gap.or_else(|| {
                    let batch = state.take(most)?;
                    let of: HashSet<Partition> = batch.iter().map(Record::place).collect();
                    Some((state.seen_of(&of), Work::Batch(batch)))
                })
            };
            if let Some((seen, work)) = work {
                self.changed.notify_all();
                return (work, seen);
            }
            self.records.notified().await;
        }
    }

    /// Ends a transaction that is committed.
    pub fn settled(&self, positions: &[Position]) {
        self.lock().settled(positions);
        self.changed.notify_all();
    }

    /// Ends a transaction that failed.
    pub fn put_back(&self, work: Work) {
        match work {
            Work::Batch(batch) => self.lock().put_back(batch),
            // The poll thread asks for it again.
            Work::Gap(_) => self.lock().put_back(Vec::new()),
        }
        self.changed.notify_all();
    }

    /// Waits, blocking, until no transaction over these partitions (or any) runs, at most so long.
    pub fn wait_idle(&self, of: Option<&[Partition]>, at_most: Duration) {
        let wait = self.changed.wait_timeout_while(self.lock(), at_most, |state| state.runs_one_of(of));
        drop(wait.expect("no holder of the assignment panics"));
    }

    /// Waits, blocking, until the queue is not full, at most so long; tells whether it is not.
    pub fn wait_for_room(&self, at_most: Duration) -> bool {
        let wait = self.changed.wait_timeout_while(self.lock(), at_most, |state| state.is_full());
        !wait.expect("no holder of the assignment panics").1.timed_out()
    }

    /// Notes that the thread polls.
    pub fn beat(&self) {
        *self.polled_at.lock().expect("an assignment cannot panic") = Instant::now();
    }

    /// Waits until the thread has not polled for so long.
    pub async fn silence(&self, limit: Duration) {
        loop {
            let silent = self.polled_at.lock().expect("an assignment cannot panic").elapsed();
            let Some(rest) = limit.checked_sub(silent).filter(|rest| !rest.is_zero()) else { return };
            tokio::time::sleep(rest).await;
        }
    }
}

#[cfg(test)]
mod tests;
