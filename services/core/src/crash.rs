//! Crash points: named places where a test makes its process die, to prove recovery from there.
//!
//! They are compiled into every build, so that what is tested is what ships; each costs one atomic load. The product never arms
//! one: only a test program does, in the child process that it starts.

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
    ARMED.set(armed).expect("a process dies at one point");
}

/// Aborts if this is the armed point and its turn has come: no destructor runs, nothing is flushed.
pub fn point(name: &str) {
    if let Some(armed) = ARMED.get()
        && armed.name == name
        && armed.left.fetch_sub(1, Ordering::SeqCst) == 1
    {
        eprintln!("crash point {name}");
        std::process::abort();
    }
}
