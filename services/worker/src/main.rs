//! `minishop-worker`: the worker alone, on PostgreSQL and Kafka.

use std::process::ExitCode;

use minishop_platform::boot;
use minishop_platform::config::Shape;

fn main() -> ExitCode {
    let about = "MiniShop's worker: reads orders from Kafka, processes each once in effect, and announces what became of it.";
    boot::main("minishop-worker", about, Shape::Worker, async |ctx| minishop_worker::start(ctx))
}
