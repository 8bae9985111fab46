//! `minishop outbox`: shows events that wait to be published, and unblocks shards.
//!
//! It uses the database directly, beside running servers. A shard's leader sees the change when it next reads the table.

use std::process::ExitCode;

use chrono::SecondsFormat;
use clap::Subcommand;
use minishop_core::clock::{Clock as _, Timestamp};
use minishop_core::ids::EventId;
use minishop_platform::boot::print;
use minishop_platform::clock::SystemClock;
use minishop_platform::config::Config;
use minishop_store::{Missing, OutboxEvent, OutboxShard, RequestedBy, Store, Unpublished};
use serde_json::json;

use crate::output::{self, Output};
use crate::store::{Failure, open, requested_by};

/// What to do with the outbox.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Output format.
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List events that wait to be published, oldest first; or the state of each shard; or events that were set aside.
    List(List),
    /// Set aside, and keep, events that cannot be published, such as those of a topic that refuses them. Later events continue.
    SetAside(SetAside),
    /// Step over numbers that are missing from a shard, as named by the alarm `outbox_gap`. Their events are lost.
    StepOver(StepOver),
}

#[derive(Debug, clap::Args)]
struct List {
    /// Show how far each shard is published, and how many of its events wait or are missing.
    #[arg(long, conflicts_with = "set_aside")]
    shards: bool,
    /// List events that were set aside, newest first.
    #[arg(long)]
    set_aside: bool,
    /// Maximum number of events, 1 to 10000.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=10_000))]
    limit: i64,
}

#[derive(Debug, clap::Args)]
struct SetAside {
    /// Event to set aside, by its id.
    #[arg(long, required_unless_present = "topic", conflicts_with = "topic")]
    event: Option<uuid::Uuid>,
    /// Set aside all waiting events of this topic, named with its prefix.
    #[arg(long)]
    topic: Option<String>,
    #[command(flatten)]
    why: Why,
}

#[derive(Debug, clap::Args)]
struct StepOver {
    /// Shard, as named by the alarm.
    #[arg(long)]
    shard: i16,
    /// First missing number, as named by the alarm.
    #[arg(long)]
    number: i64,
    #[command(flatten)]
    why: Why,
}

#[derive(Debug, clap::Args)]
struct Why {
    /// Reason, for the audit log.
    #[arg(long)]
    reason: String,
    /// Name of the operator, for the audit log.
    #[arg(long, default_value = "")]
    operator: String,
}

impl Why {
    fn requested_by(self, at: Timestamp) -> Result<RequestedBy, Failure> {
        let Self { reason, operator } = self;
        if reason.trim().is_empty() {
            return Err(refused("reason REQUIRED: give a reason for the audit log"));
        }
        Ok(requested_by(operator, reason, at))
    }
}

/// Runs the command; exit 1 when it is refused, 69 when the database does not answer.
pub async fn run(args: Args, config: Config) -> ExitCode {
    done(args, &config).await.unwrap_or_else(Failure::print)
}

async fn done(args: Args, config: &Config) -> Result<ExitCode, Failure> {
    let store = open(config, "minishop-outbox").await?;
    let at = SystemClock.now();
    match args.what {
        What::List(what) if what.shards => {
            let shards = store.operations.outbox_shards().await.map_err(Failure::of_store)?;
            Ok(print_shards(&shards, args.output))
        }
        What::List(what) => {
            let operations = &store.operations;
            let events = if what.set_aside {
                operations.outbox_set_aside(what.limit).await
            } else {
                operations.outbox_waiting(what.limit).await
            };
            Ok(print_events(&events.map_err(Failure::of_store)?, args.output))
        }
        What::SetAside(what) => set_aside(&store, what, at, args.output).await,
        What::StepOver(what) => step_over(&store, what, at, args.output).await,
    }
}

async fn set_aside(store: &Store, what: SetAside, at: Timestamp, printed: Output) -> Result<ExitCode, Failure> {
    let SetAside { event, topic, why } = what;
    let which = match event {
        Some(id) => Unpublished::Event(EventId(id)),
        None => Unpublished::Topic(topic.unwrap_or_default()),
    };
    let count = store.operations.set_aside(&which, &why.requested_by(at)?, at).await.map_err(Failure::of_store)?;
    if count == 0 {
        return Err(refused("NOT_FOUND: no such event waits to be published; see `minishop outbox list`"));
    }
    Ok(match printed {
        Output::Json => output::json(&json!({"setAside": count})),
        Output::Table => print(&format!("set aside: {count}; see `minishop outbox list --set-aside`\n")),
    })
}

async fn step_over(store: &Store, what: StepOver, at: Timestamp, printed: Output) -> Result<ExitCode, Failure> {
    let StepOver { shard, number, why } = what;
    let requested_by = why.requested_by(at)?;
    match store.operations.step_over(shard, number, &requested_by, at).await.map_err(Failure::of_store)? {
        Missing::No => Err(refused(
            "number NOT_ALLOWED: is not the first number of a gap, or the gap exceeds 100000 numbers; see the alarm `outbox_gap`",
        )),
        Missing::SteppedOver(from, to) => Ok(match printed {
            Output::Json => output::json(&json!({"shard": shard, "from": from, "to": to})),
            Output::Table => print(&format!(
                "stepped over: numbers {from} to {to} of shard {shard}; announce the orders of the lost events again with `minishop order announce --older-than 15m`\n"
            )),
        }),
    }
}

fn print_shards(shards: &[OutboxShard], printed: Output) -> ExitCode {
    let lacks = |shard: &OutboxShard| shard.last - shard.acknowledged - shard.waiting;
    match printed {
        Output::Json => {
            let rows = shards.iter().map(|s| {
                json!({"shard": s.shard, "acknowledged": s.acknowledged, "last": s.last, "waiting": s.waiting, "missing": lacks(s)})
            });
            output::json(&rows.collect::<Vec<_>>())
        }
        Output::Table => output::table(
            ["SHARD", "ACKNOWLEDGED", "LAST", "WAITING", "MISSING"],
            shards.iter().map(|s| [s.shard.into(), s.acknowledged, s.last, s.waiting, lacks(s)].map(|n: i64| n.to_string())),
        ),
    }
}

fn print_events(events: &[OutboxEvent], printed: Output) -> ExitCode {
    match printed {
        Output::Json => {
            let row = |e: &OutboxEvent| {
                let mut row = json!({"shard": e.shard, "number": e.number, "eventId": e.event_id.to_string(), "topic": e.topic});
                row[if e.reason.is_some() { "setAsideAt" } else { "waitsSince" }] = text(e.at).into();
                if let Some(reason) = &e.reason {
                    row["reason"] = reason.as_str().into();
                }
                row
            };
            output::json(&events.iter().map(row).collect::<Vec<_>>())
        }
        Output::Table => output::table(
            ["SHARD", "NUMBER", "EVENT", "TOPIC", "SINCE", "REASON"],
            events.iter().map(|e| {
                let reason = e.reason.clone().unwrap_or_default();
                [e.shard.to_string(), e.number.to_string(), e.event_id.to_string(), e.topic.clone(), text(e.at), reason]
            }),
        ),
    }
}

fn refused(text: &str) -> Failure {
    Failure::No(format!("error[VALIDATION_FAILED] outbox: nothing is changed\n  {text}"))
}

fn text(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}
