//! `minishop events replay`: publishes past events again, from the database to a topic that a new consumer reads.
//!
//! It uses database and brokers directly, beside running servers: PostgreSQL and Kafka, or the embedded store and the embedded
//! log of a running `minishop up`.

use std::process::ExitCode;

use chrono::{DateTime, Utc};
use minishop_core::clock::Clock as _;
use minishop_core::ids::OrderId;
use minishop_platform::boot::{print, refuse};
use minishop_platform::clock::{SystemClock, SystemIds};
use minishop_platform::config::Config;
use minishop_platform::events::replay::{Extent, Replay, ReplayError, check_topic};
use minishop_store::Past;
use serde_json::json;

use crate::output::{self, Output};
use crate::store::{Failure, open, requested_by};

/// What is published again, and where to.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Target topic, named with its prefix; must exist and must not be a live topic.
    #[arg(long)]
    to_topic: String,
    /// Only events of this order, by its id.
    #[arg(long)]
    order: Option<String>,
    /// Only events of this customer's orders.
    #[arg(long)]
    customer: Option<String>,
    /// Only events of orders accepted at or after this time, such as 2026-01-31T12:00:00Z.
    #[arg(long)]
    from: Option<DateTime<Utc>>,
    /// Only events of orders accepted before this time.
    #[arg(long, alias = "until")]
    to: Option<DateTime<Utc>>,
    /// Maximum number of events per second, 1 to 10000.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Show how many events match, and publish nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation.
    #[arg(long)]
    yes: bool,
    /// Reason, for the audit log.
    #[arg(long, default_value = "")]
    reason: String,
    /// Name of the operator, for the audit log.
    #[arg(long, default_value = "")]
    operator: String,
    /// Output format.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Publishes past events; exit 1 when that is refused or cut short, 69 when database or brokers do not answer.
pub async fn run(args: Args, config: Config) -> ExitCode {
    replay(&args, &config).await.unwrap_or_else(Failure::print)
}

async fn replay(args: &Args, config: &Config) -> Result<ExitCode, Failure> {
    let past = selection(args)?;
    check_topic(config, &args.to_topic).await.map_err(failed)?;
    let store = open(config, "minishop-replay").await?;
    let replay = Replay {
        config,
        store: &store,
        past: &past,
        topic: &args.to_topic,
        rate: args.rate,
        requested_by: &requested_by(args.operator.clone(), args.reason.clone(), SystemClock.now()),
        clock: &SystemClock,
        ids: &SystemIds,
    };
    let extent = replay.extent().await.map_err(failed)?;
    if extent.orders == 0 && past.order_id.is_some() {
        return Err(Failure::No("error[ORDER_NOT_FOUND] There is no such order; check the id.".to_owned()));
    }
    if args.dry_run || extent.orders == 0 {
        return Ok(print_outcome(args, extent, 0));
    }
    if !args.yes && args.order.is_none() {
        if !output::can_ask() {
            let text = "error[USAGE] events replay: confirmation needs a terminal; give --yes, or check first with --dry-run";
            return Ok(refuse(&[text]));
        }
        let Extent { orders, events } = extent;
        if !output::confirmed(&format!("publish {events} events of {orders} orders to {}?", args.to_topic)) {
            return Err(Failure::No("nothing was published".to_owned()));
        }
    }
    let published = replay.publish(extent).await.map_err(failed)?;
    Ok(print_outcome(args, extent, published))
}

/// Validates the selection of orders.
fn selection(args: &Args) -> Result<Past, Failure> {
    let Args { order, customer, from, to, .. } = args;
    if order.is_none() && customer.is_none() && from.is_none() && to.is_none() {
        return Err(field("selection", "REQUIRED", "give --order, --customer, or a time with --from or --to"));
    }
    if matches!((from, to), (Some(from), Some(to)) if from > to) {
        return Err(field("to", "OUT_OF_RANGE", "must not be before --from"));
    }
    let order_id = match order.as_deref().map(OrderId::parse) {
        Some(None) => return Err(field("order", "INVALID_FORMAT", "must be a UUID with dashes")),
        Some(id) => id,
        None => None,
    };
    Ok(Past { order_id, customer_id: customer.clone(), from: *from, until: *to })
}

fn field(name: &str, code: &str, message: &str) -> Failure {
    Failure::No(format!("error[VALIDATION_FAILED] events replay: nothing was published\n  {name} {code}: {message}"))
}

fn failed(error: ReplayError) -> Failure {
    match error {
        ReplayError::Topic(code, reason) => field("topic", code, reason),
        ReplayError::Store(error) => Failure::of_store(error),
        ReplayError::Order(id, error) => Failure::No(format!("error[INTERNAL] order {id}: {error:#}")),
        ReplayError::Unreachable(text) => Failure::Unreachable(text),
        ReplayError::Refused(error) => Failure::No(format!(
            "error[DEPENDENCY_REFUSED] the broker refused a record: {error}; the audit log has the number published"
        )),
    }
}

fn print_outcome(args: &Args, Extent { orders, events }: Extent, published: u64) -> ExitCode {
    if args.output == Output::Json {
        return output::json(&json!({"orders": orders, "events": events, "published": published, "topic": args.to_topic}));
    }
    let done = if args.dry_run { "dry run: nothing was published".to_owned() } else { format!("{published} published") };
    print(&format!("{orders} orders matched with {events} events; {done}\n"))
}
