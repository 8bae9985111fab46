//! What the writer knows of the disk: when it last committed, and whether a commit has failed since the last probe.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a commit proves that the disk accepts writes.
const PROOF: Duration = Duration::from_secs(5);
/// The bytes that a probe writes after a failure. A small write proves nothing: it may fit into the rest of a page on a full disk,
/// while an order does not.
const AFTER_A_FAILURE: i64 = 64 << 10;

/// Whether writes work, as the writer sees it.
#[derive(Debug, Default)]
pub(super) struct Health {
    committed: Mutex<Option<Instant>>,
    failures: AtomicU64,
    overcome: AtomicU64,
}

/// A write to try: how many bytes, and which failures its success clears.
#[derive(Debug, Clone, Copy)]
pub(super) struct Probe {
    pub bytes: i64,
    failures: u64,
}

impl Health {
    pub(super) fn committed(&self) {
        *self.committed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    pub(super) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the write that shows whether writes work; `None` while a recent commit proves it. After a failure only a probe
    /// counts: a commit smaller than an order may find room where an order does not.
    pub(super) fn probe(&self) -> Option<Probe> {
        let failures = self.failures.load(Ordering::Relaxed);
        if failures != self.overcome.load(Ordering::Relaxed) {
            return Some(Probe { bytes: AFTER_A_FAILURE, failures });
        }
        let committed = *self.committed.lock().unwrap_or_else(PoisonError::into_inner);
        let proved = committed.is_some_and(|at| at.elapsed() < PROOF);
        (!proved).then_some(Probe { bytes: 0, failures })
    }

    pub(super) fn passed(&self, probe: Probe) {
        self.overcome.fetch_max(probe.failures, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_proves_that_writes_work_until_one_fails() {
        let health = Health::default();
        let first = health.probe().expect("nothing is known at the start");
        assert_eq!(first.bytes, 0);
        health.committed();
        assert!(health.probe().is_none());
        health.failed();
        health.committed();
        let after = health.probe().expect("a failure is not overcome by any commit");
        assert_eq!(after.bytes, AFTER_A_FAILURE);
        health.failed();
        health.passed(after);
        assert!(health.probe().is_some(), "the second failure came after the probe was taken");
        health.passed(health.probe().expect("it is still due"));
        assert!(health.probe().is_none());
    }
}
