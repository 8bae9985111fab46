//! `minishop-worker`: the worker alone, on PostgreSQL and Kafka.

use std::process::ExitCode;

use minishop_platform::boot;
use minishop_platform::config::Shape;

fn main() -> ExitCode {
    let about = "MiniShop worker: reads orders from Kafka, processes each exactly once in effect, and publishes the outcome.";
    boot::main("minishop-worker", about, Shape::Worker, async |ctx| minishop_worker::start(ctx))
}
