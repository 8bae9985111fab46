//! Parts of a process with real counterparts: the relay with a store and an event log, hints with Redis
//! (`MINISHOP_TEST_REDIS`), and the exit codes of a whole process.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking; clippy knows only the functions marked as tests")]

mod brief;
mod hints;
mod process_ends;
mod refusing;
mod relay;
mod world;
