//! Crash points: named places where a test lets its process die, to show that what follows is made good.
//!
//! They are compiled into every build, so that what is tested is what ships, and cost one load of an atomic each. Nothing of
//! the product arms one: only a test program does, in the child process that it starts and that dies.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

static ARMED: OnceLock<Armed> = OnceLock::new();

#[derive(Debug)]
struct Armed {
    name: String,
    left: AtomicU64,
}

/// Lets this process abort when it reaches the named point for the nth time, counted from 1. Once a process.
pub fn arm(name: &str, nth: u64) {
    let armed = Armed { name: name.to_owned(), left: AtomicU64::new(nth) };
    ARMED.set(armed).expect("a process dies at one point");
}

/// Dies here, if this is the armed point and its turn has come: no destructor runs, nothing is flushed.
pub fn point(name: &str) {
    if let Some(armed) = ARMED.get()
        && armed.name == name
        && armed.left.fetch_sub(1, Ordering::SeqCst) == 1
    {
        eprintln!("crash point {name}");
        std::process::abort();
    }
}
