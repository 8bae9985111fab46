//! `minishop api`: the API alone, on PostgreSQL and Kafka.

use std::process::ExitCode;

use minishop_platform::boot::process::Process;
use minishop_platform::config::{Config, Shape};

/// Runs until a signal or a fault.
pub async fn run(config: Config) -> ExitCode {
    Process { name: "minishop-api", shape: Shape::Api, config, open_log: None }.run(minishop_api::start).await
}
