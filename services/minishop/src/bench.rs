//! `minishop bench`: loads a running server and measures it, from the request to the processed event.

mod backlog;
mod cold_start;
mod connection;
mod end_to_end;
mod endpoint;
mod grpc;
mod load;
mod metrics;
mod overload;
mod plot;
mod processes;
mod progress;
mod reader;
mod report;
mod rest;
mod roles;
mod schedule;
mod series;
mod tally;
mod target;
mod track;
mod watched;

use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use report::Report;

/// What is measured, and how it is printed.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
    /// Prefix of all topics.
    #[arg(long, global = true, env = "MINISHOP_TOPIC_PREFIX", default_value = "")]
    topic_prefix: String,
    #[command(flatten)]
    printing: report::Printing,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Measure acceptance alone: needs no worker and reads no topic.
    Accept(end_to_end::Accept),
    /// Measure to the event in `orders.processed`, and check that each accepted order is processed exactly once.
    EndToEnd(end_to_end::EndToEnd),
    /// Like end-to-end, with workers that call this program as their endpoint.
    Webhook(end_to_end::Webhook),
    /// Like end-to-end, in a new process with embedded parts.
    Embedded(end_to_end::Embedded),
    /// Send twice and five times the orders that can be accepted, and measure how many are accepted in time.
    Overload(overload::Overload),
    /// Measure how fast the relay publishes a backlog. Starts the API itself, on PostgreSQL and Kafka.
    RelayDrain(backlog::Backlog),
    /// Measure how fast a worker processes a backlog. Starts API and worker itself, on PostgreSQL and Kafka.
    CatchUp(backlog::Backlog),
    /// Measure how soon a new process with embedded parts is ready, accepts an order, and has processed it.
    ColdStart(cold_start::ColdStart),
}

/// Measures, prints the figures, and turns the outcome into an exit code: 1 if an order was lost or doubled.
pub async fn command(args: Args) -> ExitCode {
    let printed = run(&args.what, &args.topic_prefix).await.and_then(|report| report.print(&args.printing));
    printed.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::FAILURE
    })
}

async fn run(what: &What, prefix: &str) -> anyhow::Result<Report> {
    match what {
        What::Accept(args) => end_to_end::accept(args).await,
        What::EndToEnd(args) => end_to_end::end_to_end(args, prefix).await,
        What::Webhook(args) => end_to_end::webhook(args, prefix).await,
        What::Embedded(args) => end_to_end::embedded(args).await,
        What::Overload(args) => overload::overload(args).await,
        What::RelayDrain(args) => backlog::relay_drain(args, prefix).await,
        What::CatchUp(args) => backlog::catch_up(args, prefix).await,
        What::ColdStart(args) => cold_start::cold_start(args).await,
    }
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate for people")]
fn per_second(count: u64, time: Duration) -> u64 {
    (count as f64 / time.as_secs_f64()) as u64
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
