//! MiniShop: every role in one process, and the command line.

mod api;
mod bench;
mod cli;
mod config;
mod dlq;
mod events;
mod migrate;
mod order;
mod outbox;
mod output;
mod store;
mod topics;
mod up;
mod worker;

use std::process::ExitCode;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run()
}
