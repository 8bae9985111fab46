//! Waiting in tests without a runtime, most of them for another process.

use std::time::{Duration, Instant};

use crate::wait::{Look, never};

/// Interval of looks: often enough to lose no time, seldom enough to leave the cores to the processes under test.
const PACE: Duration = Duration::from_millis(10);

/// Repeats `look` until it finds something; panics with `what` and the last look after `within`. A failed test shows how long
/// each wait took.
pub fn eventually<L: Look>(within: Duration, what: &str, mut look: impl FnMut() -> L) -> L::Found {
    let began = Instant::now();
    loop {
        match look().found() {
            Ok(found) => {
                eprintln!("{:>6.1} s until: {what}", began.elapsed().as_secs_f64());
                return found;
            }
            Err(seen) => assert!(began.elapsed() < within, "{}", never(within, what, &seen)),
        }
        std::thread::park_timeout(PACE);
    }
}

/// Runs a future to its end.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}
