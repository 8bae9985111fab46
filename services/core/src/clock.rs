//! Time as an argument.

use std::fmt::Debug;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};

/// A point in UTC, with the millisecond precision of the wire and the stores.
pub type Timestamp = DateTime<Utc>;

/// Reads the time. Only `platform::clock` reads the system's clock.
///
/// Readings may go back (NTP), so they must not order anything. Timeouts use monotonic instants.
pub trait Clock: Send + Sync + Debug {
    /// Returns the current time, truncated to milliseconds.
    fn now(&self) -> Timestamp;
}

/// A clock that moves only when a test calls [`ManualClock::advance`].
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// Starts the clock at a point in time.
    pub fn at(start: Timestamp) -> Self {
        Self(AtomicI64::new(start.timestamp_millis()))
    }

    /// Advances the clock; a negative delta moves it back.
    pub fn advance(&self, by: TimeDelta) {
        self.0.fetch_add(by.num_milliseconds(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// Converts milliseconds since 1970; values that a `DateTime` cannot hold become 1970.
pub fn from_millis(millis: i64) -> Timestamp {
    DateTime::from_timestamp_millis(millis).unwrap_or_default()
}
