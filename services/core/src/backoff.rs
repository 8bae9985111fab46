//! Backoff: exponential growth, a cap, and full jitter.

use std::time::Duration;

/// The waits between attempts.
///
/// Full jitter draws each wait from zero to the ceiling, so that many waiters do not retry at once (AWS Architecture Blog,
/// "Exponential Backoff And Jitter").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The ceiling of the first wait.
    pub base: Duration,
    /// The ceiling grows by this factor after each attempt.
    pub factor: u32,
    /// The highest ceiling.
    pub cap: Duration,
}

impl Backoff {
    /// For unreachable infrastructure: 50 ms, doubling up to 30 s, without end.
    pub const INFRASTRUCTURE: Self = Self { base: Duration::from_millis(50), factor: 2, cap: Duration::from_secs(30) };

    /// Returns the ceiling of the wait after a failed attempt, counted from 1.
    pub fn ceiling(&self, attempt: u32) -> Duration {
        let growth = self.factor.saturating_pow(attempt.saturating_sub(1));
        self.base.saturating_mul(growth).min(self.cap)
    }

    /// Maps random bits to the wait after a failed attempt: uniform from zero to the ceiling.
    pub fn wait(&self, attempt: u32, random: u32) -> Duration {
        self.ceiling(attempt).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ceilings_grow_to_the_cap() {
        let ceilings: Vec<_> = (1..=12).map(|n| Backoff::INFRASTRUCTURE.ceiling(n).as_millis()).collect();
        assert_eq!(ceilings, [50, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]);
    }

    proptest! {
        #[test]
        fn a_wait_is_within_its_ceiling(attempt: u32, random: u32) {
            prop_assert!(Backoff::INFRASTRUCTURE.wait(attempt, random) <= Backoff::INFRASTRUCTURE.ceiling(attempt));
        }
    }

    #[test]
    fn jitter_uses_the_whole_range() {
        assert_eq!(Backoff::INFRASTRUCTURE.wait(3, 0), Duration::ZERO);
        assert_eq!(Backoff::INFRASTRUCTURE.wait(3, u32::MAX), Duration::from_millis(200));
    }
}
