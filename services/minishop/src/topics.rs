//! `minishop topics`: creates the topics on Kafka, checks them, or steps over unreadable records.

mod skip;

use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use minishop_bus::topics::{Made, SAFE_RETENTION, Settings, Topic, create, largest_record, list, settings, settings_of_new};
use minishop_contracts::topics;
use minishop_platform::config::Config;
use serde_json::{Value, json};

use crate::cli::EXIT_NO;
use crate::output::{self, Output};
use crate::store::Failure;

/// How long the brokers may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// With fewer replicas, records are lost when one broker is destroyed while another restarts.
const SAFE_REPLICAS: usize = 3;

/// What to do with the topics.
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
    /// Create missing topics, with the brokers' default replication and settings that pass the check.
    Create,
    /// Check that all topics exist and that their settings lose no events; exit 1 if not. Warns below three replicas.
    Check,
    /// Step over records of `orders.created` that no worker can read. They become one dead letter, without content.
    Skip(skip::Args),
}

/// Runs the command on the configured brokers, or on the embedded log of a running server.
pub async fn run(args: Args, config: Config) -> ExitCode {
    let brokers = config.brokers();
    let done = match args.what {
        What::Create => make(&config, &brokers, args.output).await,
        What::Check => check(&config, &brokers, args.output).await,
        What::Skip(what) => return skip::run(what, config, &brokers, args.output).await,
    };
    done.unwrap_or_else(|error| Failure::Unreachable(format!("{brokers}: {error:#}")).print())
}

async fn make(config: &Config, brokers: &str, output: Output) -> anyhow::Result<ExitCode> {
    let made = create(brokers, &config.topic_prefix, config.topic_partitions, PATIENCE).await?;
    Ok(match output {
        Output::Json => output::json(&made.iter().map(|(name, made)| row(name, *made, &config.topic_prefix)).collect::<Vec<_>>()),
        Output::Table => {
            let cells = made.iter().map(|(name, made)| table_row(name, *made, &config.topic_prefix));
            output::table(["TOPIC", "RESULT", "SETTINGS"], cells)
        }
    })
}

fn row(name: &str, made: Made, prefix: &str) -> Value {
    let mut row = json!({"topic": name, "result": made});
    if made == Made::Created {
        row["settings"] =
            settings_of_new(name, prefix).map(|(name, value)| (name.to_owned(), Value::from(value))).into_iter().collect();
    }
    row
}

fn table_row(name: &str, made: Made, prefix: &str) -> [String; 3] {
    let (result, settings) = match made {
        Made::Created => ("created", settings_of_new(name, prefix).map(|(name, value)| format!("{name}={value}")).join(" ")),
        Made::Existed => ("existed", "unchanged; see `minishop topics check`".to_owned()),
    };
    [name.to_owned(), result.to_owned(), settings]
}

async fn check(config: &Config, brokers: &str, output: Output) -> anyhow::Result<ExitCode> {
    let there = list(brokers, PATIENCE).await?;
    let wanted: Vec<String> = topics::ALL.iter().map(|topic| topics::prefixed(&config.topic_prefix, topic)).collect();
    let (mut found, mut faults): (Vec<&Topic>, Vec<String>) = (Vec::new(), Vec::new());
    for name in &wanted {
        match there.iter().find(|topic| topic.name == *name) {
            Some(topic) => found.push(topic),
            None => faults.push(format!("error[TOPIC_MISSING] {name}: does not exist; run `minishop topics create`")),
        }
    }
    let names: Vec<&str> = found.iter().map(|topic| topic.name.as_str()).collect();
    let dead_letters = topics::prefixed(&config.topic_prefix, topics::CREATED_DEAD_LETTERS);
    for (name, settings) in names.iter().zip(settings(brokers, &names, PATIENCE).await?) {
        let largest = u64::from(largest_record(*name == dead_letters));
        faults.extend(risks(&settings, largest).into_iter().map(|risk| format!("error[TOPIC_UNSAFE] {name}: {risk}")));
    }
    for fault in &faults {
        eprintln!("{fault}");
    }
    for topic in found.iter().filter(|topic| topic.replicas < SAFE_REPLICAS) {
        eprintln!(
            "warning {}: has {} replicas; use {SAFE_REPLICAS} or more to survive the loss of a broker",
            topic.name, topic.replicas
        );
    }
    let printed = match output {
        Output::Json => output::json(&found),
        Output::Table => output::table(
            ["TOPIC", "PARTITIONS", "REPLICAS"],
            found.iter().map(|topic| [topic.name.clone(), topic.partitions.to_string(), topic.replicas.to_string()]),
        ),
    };
    Ok(if faults.is_empty() { printed } else { ExitCode::from(EXIT_NO) })
}

/// Lists the settings that lose events, and what to set instead.
fn risks(settings: &Settings, largest: u64) -> Vec<String> {
    let mut risks = Vec::new();
    if settings.compacted {
        risks.push("cleanup.policy compacts, which removes all but the newest event of each key; set it to delete".to_owned());
    }
    if let Some(kept) = settings.retention.filter(|kept| *kept < SAFE_RETENTION) {
        let (got, fits) = (kept.as_millis(), SAFE_RETENTION.as_millis());
        risks.push(format!("retention.ms is {got}, and events not consumed by then are lost; set {fits} (a week) or more"));
    }
    if settings.largest < largest {
        let got = settings.largest;
        risks.push(format!("max.message.bytes is {got}, and larger records cannot be published whole; set {largest} or more"));
    }
    risks
}
