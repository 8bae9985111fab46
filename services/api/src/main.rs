//! `minishop-api`: the API alone, on PostgreSQL and Kafka.

use std::process::ExitCode;

use minishop_platform::boot;
use minishop_platform::config::Shape;

fn main() -> ExitCode {
    let about = "MiniShop's API: takes orders over REST and gRPC and hands them to Kafka.";
    boot::main("minishop-api", about, Shape::Api, minishop_api::start)
}
