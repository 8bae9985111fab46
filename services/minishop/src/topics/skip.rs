//! `minishop topics skip`: has the workers step over records that none of them can read.
//!
//! It writes an audit entry. A worker that waits at that offset finds it, settles the records as one dead letter without content,
//! in one transaction with its position, and reads on after them. Where no worker waits the entry has no effect.

use std::process::ExitCode;

use minishop_bus::consume::{Partition, range_of};
use minishop_contracts::topics;
use minishop_core::clock::Clock as _;
use minishop_platform::boot::print;
use minishop_platform::clock::SystemClock;
use minishop_platform::config::Config;
use minishop_store::{Gap, Store};
use serde_json::json;

use super::PATIENCE;
use crate::output::{self, Output};
use crate::store::{Failure, open, requested_by};

/// What is stepped over, and why.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Partition of `orders.created`, as named by the alarm.
    #[arg(long)]
    partition: i32,
    /// First offset that cannot be read, as named by the alarm.
    #[arg(long)]
    offset: i64,
    /// Offset at which the workers continue; the next one unless given. For an unreadable batch, give the offset after its last
    /// one, which kafka-dump-log shows.
    #[arg(long)]
    until: Option<i64>,
    /// Reason, for the audit log and the dead letter.
    #[arg(long)]
    reason: String,
    /// Name of the operator, for the audit log and the dead letter.
    #[arg(long, default_value = "")]
    operator: String,
}

/// Records what to step over; exit 1 when it is refused, 69 when database or brokers do not answer.
pub async fn run(args: Args, config: Config, brokers: &str, printed: Output) -> ExitCode {
    match skip(args, &config, brokers).await {
        Ok(gap) if printed == Output::Json => output::json(&json!(gap)),
        Ok(gap) => print(&format!(
            "recorded: a worker that is blocked at offset {} of partition {} of {} continues at offset {}\n",
            gap.offset, gap.partition, gap.topic, gap.until
        )),
        Err(failure) => failure.print(),
    }
}

async fn skip(args: Args, config: &Config, brokers: &str) -> Result<Gap, Failure> {
    let Args { partition, offset, until, reason, operator } = args;
    let topic = topics::prefixed(&config.topic_prefix, topics::CREATED);
    let until = until.unwrap_or_else(|| offset.saturating_add(1));
    if reason.trim().is_empty() {
        return Err(refused("reason REQUIRED: give a reason for the audit log and the dead letter"));
    }
    let place = Partition { topic: topic.as_str().into(), partition };
    let servers = brokers.to_owned();
    let range = tokio::task::spawn_blocking(move || range_of(&servers, &place, PATIENCE)).await;
    let range = range.map_err(anyhow::Error::from).and_then(|range| range);
    let (first, end) = range.map_err(|error| Failure::Unreachable(format!("{brokers}: {topic}: {error:#}")))?;
    if offset < first || until <= offset || until > end {
        let text = format!("offset OUT_OF_RANGE: partition {partition} of {topic} has the offsets {first} to {}", end - 1);
        return Err(refused(&text));
    }
    let store = open(config, "minishop-skip").await?;
    let gap = Gap { consumer: config.kafka_group.clone(), topic, partition, offset, until };
    not_settled(&store, &gap).await?;
    let at = SystemClock.now();
    store.operations.skip(&gap, requested_by(operator, reason, at), at).await.map_err(Failure::of_store)?;
    Ok(gap)
}

/// Refuses an offset that the workers have already settled.
async fn not_settled(store: &Store, gap: &Gap) -> Result<(), Failure> {
    let positions = store.reads.positions(&gap.consumer).await.map_err(Failure::of_store)?;
    let at = positions.iter().find(|at| at.partition == gap.partition && at.topic == gap.topic);
    match at.map_or(0, |at| at.next_offset) {
        next if next > gap.offset => Err(refused(&format!(
            "offset NOT_ALLOWED: the workers of {} have settled it; their next offset is {next}",
            gap.consumer
        ))),
        _ => Ok(()),
    }
}

fn refused(text: &str) -> Failure {
    Failure::No(format!("error[VALIDATION_FAILED] topics skip: nothing is skipped\n  {text}"))
}
