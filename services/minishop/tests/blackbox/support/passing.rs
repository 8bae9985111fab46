//! Waiting where time itself is tested: a lease expires, a server stays away.

use std::time::{Duration, Instant};

use minishop_testkit::blocking::eventually;

/// Waits until `time` has passed since `began`.
pub fn passes(time: Duration, began: Instant, what: &str) {
    eventually(2 * time, what, || began.elapsed() >= time);
}
