//! Crash points: named places where a recovery test makes its process abort.
//!
//! They are compiled into every build, so that the tested binary is the shipped one; each costs one atomic load. Only a test
//! program calls [`arm`], in the child process that it starts.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

static ARMED: OnceLock<Armed> = OnceLock::new();

#[derive(Debug)]
struct Armed {
    name: String,
    left: AtomicU64,
}

/// Makes this process abort when it reaches the named point for the nth time, from 1. Call once per process.
pub fn arm(name: &str, nth: u64) {
    let armed = Armed { name: name.to_owned(), left: AtomicU64::new(nth) };
    ARMED.set(armed).expect("`arm` is called once");
}

/// Aborts at the `nth` call for the point that [`arm`] has named: no destructor runs, nothing is flushed.
pub fn point(name: &str) {
    if let Some(armed) = ARMED.get()
        && armed.name == name
        && armed.left.fetch_sub(1, Ordering::SeqCst) == 1
    {
        eprintln!("crash point {name}");
        std::process::abort();
    }
}
