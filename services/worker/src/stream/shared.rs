//! The assignment between the poll thread and the processor: its lock, and the signals of its changes.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use minishop_bus::Record;
use minishop_bus::consume::Partition;
use minishop_core::position::Position;
use tokio::sync::Notify;

use super::assignment::{Assignment, Work};

/// The assignment, and the signals of its changes.
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
    /// Creates an assignment without partitions.
    pub fn new() -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), records: Notify::new(), polled_at: Mutex::new(Instant::now()) }
    }

    /// Locks the assignment.
    pub fn lock(&self) -> MutexGuard<'_, Assignment> {
        self.state.lock().expect("no holder of the assignment panics")
    }

    /// Signals that records wait, or that partitions were checked.
    pub fn wake(&self) {
        self.records.notify_one();
    }

    /// Waits for work; returns it with the store's positions of its partitions as last seen. One caller at a time.
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

    /// Ends a committed transaction.
    pub fn settled(&self, positions: &[Position]) {
        self.lock().settled(positions);
        self.changed.notify_all();
    }

    /// Ends a failed transaction.
    pub fn put_back(&self, work: Work) {
        match work {
            Work::Batch(batch) => self.lock().put_back(batch),
            // The poll thread requests it again.
            Work::Gap(_) => self.lock().put_back(Vec::new()),
        }
        self.changed.notify_all();
    }

    /// Blocks until no transaction runs over these partitions (or any), at most `at_most`.
    pub fn wait_idle(&self, of: Option<&[Partition]>, at_most: Duration) {
        let wait = self.changed.wait_timeout_while(self.lock(), at_most, |state| state.runs_one_of(of));
        drop(wait.expect("no holder of the assignment panics"));
    }

    /// Blocks until the queue is not full, at most `at_most`; returns whether it has room.
    pub fn wait_for_room(&self, at_most: Duration) -> bool {
        let wait = self.changed.wait_timeout_while(self.lock(), at_most, |state| state.is_full());
        !wait.expect("no holder of the assignment panics").1.timed_out()
    }

    /// Notes a poll.
    pub fn beat(&self) {
        *self.polled_at.lock().expect("an assignment cannot panic") = Instant::now();
    }

    /// Waits until the thread has not polled for `limit`.
    pub async fn silence(&self, limit: Duration) {
        loop {
            let silent = self.polled_at.lock().expect("an assignment cannot panic").elapsed();
            let Some(rest) = limit.checked_sub(silent).filter(|rest| !rest.is_zero()) else { return };
            tokio::time::sleep(rest).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use minishop_bus::Headers;

    use super::*;

    #[tokio::test]
    async fn a_thread_that_hangs_is_noticed() {
        let shared = Arc::new(Shared::new());
        let limit = Duration::from_millis(200);
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let polls = {
            let shared = shared.clone();
            // Polls for longer than the limit, then hangs.
            std::thread::spawn(move || {
                for _ in 0..20 {
                    shared.beat();
                    let _ = stopped.recv_timeout(limit / 10);
                }
                let _ = stopped.recv();
            })
        };
        let started = Instant::now();
        shared.silence(limit).await;
        assert!(started.elapsed() >= limit * 2, "not while it polls: {:?}", started.elapsed());
        drop(stop);
        polls.join().unwrap();
    }

    #[tokio::test]
    async fn a_full_queue_waits_for_room() {
        let shared = Arc::new(Shared::new());
        let partition = Partition { topic: Arc::from("t"), partition: 0 };
        shared.lock().add(std::slice::from_ref(&partition));
        shared.lock().checked(&partition, 0, None);
        for offset in 0..2048 {
            let (topic, headers) = (partition.topic.clone(), Headers::default());
            shared.lock().push(Record { topic, partition: 0, offset, key: None, value: None, headers, timestamp: 0 });
        }
        assert!(shared.lock().is_full());
        assert!(!shared.wait_for_room(Duration::from_millis(1)), "nobody makes any");
        let waiter = shared.clone();
        let waits = std::thread::spawn(move || waiter.wait_for_room(Duration::from_mins(1)));
        assert!(matches!(shared.next(512).await.0, Work::Batch(batch) if batch.len() == 512));
        assert!(waits.join().unwrap());
        assert!(!shared.lock().is_half_empty(), "to resume it must be emptier");
    }
}
