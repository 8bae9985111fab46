//! `minishop worker`: the worker alone, on PostgreSQL and Kafka.

use std::process::ExitCode;

use minishop_platform::boot::process::Process;
use minishop_platform::config::{Config, Shape};

/// Runs until a signal or a fault.
pub async fn run(config: Config) -> ExitCode {
    Process { name: "minishop-worker", shape: Shape::Worker, config, open_log: None }
        .run(async |ctx| minishop_worker::start(ctx))
        .await
}
