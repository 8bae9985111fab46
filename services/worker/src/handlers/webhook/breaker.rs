//! When to leave an endpoint alone that is wholly down, so that its outage uses up no attempts.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard};
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
    fn admit(&mut self, now: Instant) -> bool {
        match self.state {
            State::Closed => true,
            State::Open(until) if now >= until => {
                self.state = State::Probing;
                true
            }
            State::Open(_) | State::Probing => false,
        }
    }

    /// Lets another call find out: the one that was to has ended without a word.
    fn give_back(&mut self, now: Instant) {
        if self.state == State::Probing {
            self.state = State::Open(now);
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

    fn is_open(&self) -> bool {
        self.state != State::Closed
    }

    /// Takes note of how a call ended; a refusal is an answer, and no failure.
    fn note(&mut self, key: &Bytes, failed: bool, now: Instant) {
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

/// The right to one call. A call may be dropped at any moment, by a drain, a time limit or a panic: the one that finds out for all
/// leaves that to the next one then, and no word of it would ever come.
#[derive(Debug)]
pub(super) struct Permit<'b> {
    breaker: &'b Mutex<Breaker>,
    probes: bool,
}

impl<'b> Permit<'b> {
    /// Asks for a call; `None` while calls pause.
    pub fn ask(breaker: &'b Mutex<Breaker>, now: Instant) -> Option<Self> {
        let mut state = lock(breaker);
        state.admit(now).then(|| Self { breaker, probes: state.is_open() })
    }

    /// Takes note of how the call ended; tells whether calls were paused before, and whether they are now.
    pub fn note(mut self, key: &Bytes, failed: bool, now: Instant) -> (bool, bool) {
        self.probes = false;
        let mut state = lock(self.breaker);
        let was_open = state.is_open();
        state.note(key, failed, now);
        (was_open, state.is_open())
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.probes {
            lock(self.breaker).give_back(Instant::now());
        }
    }
}

pub(super) fn lock(breaker: &Mutex<Breaker>) -> MutexGuard<'_, Breaker> {
    breaker.lock().expect("no holder of the breaker panics")
}

/// A breaker that is open until then, for tests of other parts.
#[cfg(test)]
pub(super) fn open_until(until: Instant) -> Breaker {
    Breaker { state: State::Open(until), ..Breaker::default() }
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
    fn a_call_that_was_to_find_out_and_panics_leaves_that_to_the_next() {
        let now = Instant::now();
        let breaker = Mutex::new(open_until(now));
        let panics = std::panic::catch_unwind(|| {
            let _permit = Permit::ask(&breaker, now).expect("the first may");
            assert!(Permit::ask(&breaker, now).is_none(), "alone");
            panic!("out of paper");
        });
        assert!(panics.is_err());
        let probe = Permit::ask(&breaker, Instant::now()).expect("the next one finds out");
        assert_eq!(probe.note(&key(1), false, now), (true, false));
    }

    #[test]
    fn a_dropped_call_that_was_under_way_lets_nobody_in() {
        let now = Instant::now();
        let breaker = Mutex::default();
        let under_way = Permit::ask(&breaker, now).expect("all is well");
        *lock(&breaker) = open_until(now);
        let probe = Permit::ask(&breaker, now).expect("the first may");
        drop(under_way);
        assert!(Permit::ask(&breaker, Instant::now()).is_none(), "one finds out already");
        drop(probe);
    }

    #[test]
    fn calls_that_were_under_way_do_not_prolong_the_pause() {
        let now = Instant::now();
        let mut breaker = open(now);
        breaker.note(&key(9), true, now + OPEN / 2);
        assert_eq!(breaker.paused(now + OPEN), None);
    }
}
