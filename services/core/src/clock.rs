//! Time as an argument.

use std::fmt::Debug;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};

/// A point in UTC, kept to the millisecond: what the wire prints and every store keeps.
pub type Timestamp = DateTime<Utc>;

/// Tells the time. The one lawful reader of the system's clock is `platform::clock`.
///
/// Readings may go back (NTP), so nothing may be ordered by them. Timeouts use monotonic instants instead.
pub trait Clock: Send + Sync + Debug {
    /// Reads the present time, cut to whole milliseconds.
    fn now(&self) -> Timestamp;
}

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// Starts the clock at a point in time.
    pub fn at(start: Timestamp) -> Self {
        Self(AtomicI64::new(start.timestamp_millis()))
    }

    /// Moves the clock on; a negative delta moves it back.
    pub fn advance(&self, by: TimeDelta) {
        self.0.fetch_add(by.num_milliseconds(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// Builds a timestamp from milliseconds since 1970; what a `DateTime` cannot hold becomes 1970.
pub fn from_millis(millis: i64) -> Timestamp {
    DateTime::from_timestamp_millis(millis).unwrap_or_default()
}
