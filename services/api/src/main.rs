//! `minishop-api`: the API alone, on PostgreSQL and Kafka.

use std::process::ExitCode;

use minishop_platform::boot;
use minishop_platform::config::Shape;

fn main() -> ExitCode {
    let about = "MiniShop API: accepts orders over REST and gRPC and publishes their events to Kafka.";
    boot::main("minishop-api", about, Shape::Api, minishop_api::start)
}
