//! Waiting for another process.

use std::time::{Duration, Instant};

/// Interval of polls: often enough to lose no time, seldom enough to leave the cores to the processes under test.
const PACE: Duration = Duration::from_millis(10);

/// Polls until `look` returns a value; panics with `what` at the deadline. A failed test shows how long each wait took.
pub fn eventually<T>(within: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            eprintln!("{:>6.1} s until: {what}", began.elapsed().as_secs_f64());
            return found;
        }
        assert!(began.elapsed() < within, "not within {within:?}: {what}");
        std::thread::park_timeout(PACE);
    }
}
