//! When to leave an endpoint alone that is wholly down, so that its outage uses up no attempts.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

/// Failures in a row that open the breaker.
const FAILURES: u32 = 5;
/// Over so many record keys: the orders of one customer that always fail are no outage.
const KEYS: usize = 3;
/// For how long.
const OPEN: Duration = Duration::from_secs(30);
/// How soon to ask again while one call finds out.
const PROBING: Duration = Duration::from_millis(250);

/// Counts failures in a row; once open, nothing is called for a while, and then one call finds out.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    keys: HashSet<Bytes>,
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Closed,
    Open(Instant),
    Probing,
}

impl Breaker {
    /// Tells whether this call may be made; after the pause the first one may, alone.
    pub fn admit(&mut self, now: Instant) -> bool {
        match self.state {
            State::Closed => true,
            State::Open(until) if now >= until => {
                self.state = State::Probing;
                true
            }
            State::Open(_) | State::Probing => false,
        }
    }

    /// Tells how long nothing should be claimed.
    pub fn paused(&self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Closed => None,
            State::Open(until) => until.checked_duration_since(now).filter(|left| !left.is_zero()),
            State::Probing => Some(PROBING),
        }
    }

    pub fn is_open(&self) -> bool {
        self.state != State::Closed
    }

    /// Takes note of how a call ended; a refusal is an answer, and no failure.
    pub fn note(&mut self, key: &Bytes, failed: bool, now: Instant) {
        if !failed {
            *self = Self::default();
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if self.keys.len() < KEYS {
            self.keys.insert(key.clone());
        }
        // Calls that were under way when it opened do not prolong the pause.
        let probed = self.state == State::Probing;
        if probed || (self.state == State::Closed && self.failures >= FAILURES && self.keys.len() >= KEYS) {
            self.state = State::Open(now + OPEN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> Bytes {
        Bytes::from(format!("customer-{n}"))
    }

    fn open(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        (0..5).for_each(|n| breaker.note(&key(n), true, now));
        breaker
    }

    #[test]
    fn five_failures_over_three_keys_pause_all_calls_for_thirty_seconds() {
        let now = Instant::now();
        let mut breaker = open(now);
        assert!(breaker.is_open() && !breaker.admit(now));
        assert_eq!(breaker.paused(now), Some(OPEN));
        assert_eq!(breaker.paused(now + OPEN), None);
    }

    #[test]
    fn one_failing_key_is_no_outage() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        (0..100).for_each(|n| breaker.note(&key(n % 2), true, now));
        assert!(breaker.admit(now));
    }

    #[test]
    fn a_success_between_failures_keeps_it_closed() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        (0..20).for_each(|n| breaker.note(&key(n), n % 4 != 3, now));
        assert!(breaker.admit(now));
    }

    #[test]
    fn after_the_pause_one_call_finds_out_for_all() {
        let now = Instant::now();
        let mut breaker = open(now);
        assert!(breaker.admit(now + OPEN));
        assert!(!breaker.admit(now + OPEN), "the others wait for the first");
        breaker.note(&key(1), true, now + OPEN);
        assert_eq!(breaker.paused(now + OPEN), Some(OPEN));
        assert!(breaker.admit(now + OPEN + OPEN));
        breaker.note(&key(1), false, now + OPEN + OPEN);
        assert!(breaker.admit(now + OPEN + OPEN) && !breaker.is_open());
    }

    #[test]
    fn calls_that_were_under_way_do_not_prolong_the_pause() {
        let now = Instant::now();
        let mut breaker = open(now);
        breaker.note(&key(9), true, now + OPEN / 2);
        assert_eq!(breaker.paused(now + OPEN), None);
    }
}
