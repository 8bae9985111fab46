//! Schedules the sweep for rows that should be due and are not: some keys at a time, so that claims never wait for a large lot.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

/// The pause between sweeps that nothing brings forward.
const EVERY: Duration = Duration::from_secs(5);
/// The pause when the stream has parked an event behind another one. Sweeps take at most a twentieth of the time.
const SOON: Duration = Duration::from_millis(100);
const SHARE: u32 = 20;

/// The state of the sweep.
#[derive(Debug)]
pub(super) struct Sweep {
    /// When the next sweep starts, or the next step of the running one.
    at: Instant,
    /// No sweep starts before this.
    may_begin_at: Instant,
    /// The key after which it continues; `None` between two sweeps.
    after: Option<Bytes>,
    /// How long this sweep has taken so far.
    took: Duration,
    /// Whether an event was parked behind one that this sweep may have passed already.
    again: bool,
}

impl Sweep {
    pub fn new(now: Instant) -> Self {
        Self { at: now, may_begin_at: now, after: None, took: Duration::ZERO, again: false }
    }

    /// Brings the next sweep forward: an event was parked behind another one, which may have left the lot meanwhile.
    pub fn soon(&mut self) {
        if self.after.is_some() {
            self.again = true;
        } else {
            self.at = self.at.min(self.may_begin_at);
        }
    }

    pub fn at(&self) -> Instant {
        self.at
    }

    pub fn after(&self) -> Option<&Bytes> {
        self.after.as_ref()
    }

    /// Notes a step. `after` is the key after which the next one continues; `None` ends the sweep, and so does a failure: due
    /// rows are claimed first then.
    pub fn stepped(&mut self, began: Instant, now: Instant, after: Option<Bytes>) {
        self.took += now.saturating_duration_since(began);
        self.after = after;
        if self.after.is_some() {
            self.at = now;
            return;
        }
        let rest = std::mem::take(&mut self.took) * SHARE;
        self.may_begin_at = now + SOON.max(rest);
        self.at = if std::mem::take(&mut self.again) { self.may_begin_at } else { now + EVERY.max(rest) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_goes_on_at_once_and_takes_a_twentieth_of_the_time() {
        let (mut now, step) = (Instant::now(), Duration::from_millis(40));
        let mut sweep = Sweep::new(now);
        for n in 0..10_u8 {
            assert_eq!(sweep.at(), now);
            sweep.stepped(now, now + step, (n < 9).then(|| vec![n].into()));
            now += step;
        }
        assert_eq!((sweep.at(), sweep.after()), (now + step * 10 * 20, None));
        sweep.soon();
        assert_eq!(sweep.at(), now + step * 10 * 20, "not even soon");
    }

    #[test]
    fn what_is_set_behind_an_event_while_a_search_runs_is_searched_for_again() {
        let now = Instant::now();
        let mut sweep = Sweep::new(now);
        sweep.stepped(now, now, Some(Bytes::from_static(b"a")));
        sweep.soon();
        sweep.stepped(now, now, None);
        assert_eq!(sweep.at(), now + SOON);
        sweep.stepped(now, now, None);
        assert_eq!(sweep.at(), now + EVERY);
    }
}
