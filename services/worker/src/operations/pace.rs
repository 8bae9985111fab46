//! The rate limit of an operation.

use minishop_core::clock::Timestamp;

/// A token bucket: it fills at the operation's rate per second and holds at most one second's worth.
#[derive(Debug)]
pub(super) struct Pace {
    rate: f64,
    at: Timestamp,
    budget: f64,
}

impl Pace {
    /// Starts with one token, so that a slow rate starts at once.
    pub(super) fn new(rate: i32, now: Timestamp) -> Self {
        Self { rate: f64::from(rate.max(1)), at: now, budget: 1.0 }
    }

    /// Returns how many may go now. A clock that went back adds nothing.
    pub(super) fn allowed(&mut self, now: Timestamp) -> usize {
        let passed = now.signed_duration_since(self.at).to_std().unwrap_or_default().as_secs_f64();
        self.at = now;
        self.budget = (self.budget + passed * self.rate).min(self.rate.max(1.0));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to a rate of at most 10 000")]
        let whole = self.budget as usize;
        whole
    }

    /// Takes `count` tokens.
    pub(super) fn took(&mut self, count: usize) {
        #[expect(clippy::cast_precision_loss, reason = "at most a rate of 10 000")]
        let count = count as f64;
        self.budget = (self.budget - count).max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;
    use minishop_core::clock::from_millis;

    #[test]
    fn a_rate_is_kept_over_any_steps() {
        let start = from_millis(0);
        let mut pace = Pace::new(50, start);
        let mut gone = 0;
        for step in 0..=100 {
            let allowed = pace.allowed(start + TimeDelta::milliseconds(step * 100));
            pace.took(allowed);
            gone += allowed;
        }
        assert_eq!(gone, 1 + 500, "ten seconds at fifty, and the one at the start");
    }

    #[test]
    fn what_was_not_used_is_saved_up_for_one_second() {
        let start = from_millis(0);
        let mut pace = Pace::new(10, start);
        assert_eq!(pace.allowed(start + TimeDelta::minutes(5)), 10);
        pace.took(10);
        assert_eq!(pace.allowed(start), 0, "the clock went back");
        assert_eq!(pace.allowed(start + TimeDelta::milliseconds(100)), 1);
    }
}
