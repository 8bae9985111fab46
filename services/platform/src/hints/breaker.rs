//! A circuit breaker for a failing server.

use std::time::Duration;

use tokio::time::Instant;

/// Consecutive failures that open the breaker, and for how long.
const FAILURES: u32 = 5;
const OPEN: Duration = Duration::from_secs(5);

/// Blocks calls for a while after consecutive failures. From then on, each failure blocks them again, until a call succeeds.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    until: Option<Instant>,
}

impl Breaker {
    /// Returns whether a call may be made.
    pub fn allows(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now >= until)
    }

    /// Returns whether it has opened and no call succeeded since.
    pub fn is_open(&self) -> bool {
        self.until.is_some()
    }

    /// Records the outcome of a call; returns whether it opened the breaker.
    pub fn note(&mut self, done: bool, now: Instant) -> bool {
        if done {
            *self = Self::default();
            return false;
        }
        self.failures += 1;
        let was_open = self.is_open();
        if self.failures >= FAILURES {
            self.until = Some(now + OPEN);
        }
        !was_open && self.is_open()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_in_a_row_open_it_for_five_seconds() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        let opened: Vec<bool> = (0..5).map(|_| breaker.note(false, now)).collect();
        assert_eq!(opened, [false, false, false, false, true]);
        assert!(!breaker.allows(now + OPEN - Duration::from_millis(1)));
        assert!(breaker.allows(now + OPEN), "then one call finds out");
    }

    #[test]
    fn a_failure_of_that_call_opens_it_again_at_once() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        assert!((0..5).any(|_| breaker.note(false, now)));
        assert!(!breaker.note(false, now + OPEN), "it had not closed, so this is no news");
        assert!(!breaker.allows(now + OPEN + Duration::from_secs(1)));
    }

    #[test]
    fn a_success_forgets_the_failures() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for done in [false, false, false, false, true, false, false, false, false] {
            breaker.note(done, now);
        }
        assert!(breaker.allows(now) && !breaker.is_open());
    }
}
