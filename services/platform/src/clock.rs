//! The system's time and randomness; nothing else reads them.

use chrono::{DurationRound, TimeDelta, Utc};
use minishop_core::clock::{Clock, Timestamp};
use minishop_core::ids::{Ids, Sequence};
use uuid::Uuid;

/// One per process: all its ids increase.
static SEQUENCE: Sequence = Sequence::new();

/// Reads the system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "this is the Clock that everything else is given")]
        let now = Utc::now();
        now.duration_trunc(TimeDelta::milliseconds(1)).unwrap_or(now)
    }
}

/// Draws random bits from the thread's generator, which is seeded by the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemIds;

impl Ids for SystemIds {
    fn random(&self) -> [u8; 10] {
        rand::random()
    }

    fn next(&self, at: Timestamp) -> Uuid {
        SEQUENCE.next(at, self.random())
    }
}
