//! Waiting where time itself is the test: a lease runs out, a server stays away.

use std::time::{Duration, Instant};

use crate::wait::eventually;

/// Waits until so much time has passed since `began`.
pub fn passes(time: Duration, began: Instant, what: &str) {
    eventually(2 * time, what, || (began.elapsed() >= time).then_some(()));
}
