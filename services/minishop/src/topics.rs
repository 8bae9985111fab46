//! `minishop topics`: makes the topics on Kafka, or says what is wrong with them.

use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use minishop_contracts::topics;
use minishop_platform::bus::topics::{Made, Topic, create, list};
use minishop_platform::config::Config;

use crate::cli::{EXIT_NO, EXIT_UNREACHABLE};
use crate::output::{self, Output};

/// How long the brokers may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Fewer copies than this lose records when one broker burns while another restarts.
const SAFE_REPLICAS: usize = 3;

/// What to do with the topics.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How the result is printed.
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make the topics that are not there, with the brokers' default replication.
    Create,
    /// Check that all are there; exit 1 if not. Warns below three replicas.
    Check,
}

/// Makes or checks the topics on the brokers of the configuration, or on the embedded log that runs.
pub async fn run(args: Args, config: Config) -> ExitCode {
    let brokers = config.kafka_brokers.clone().unwrap_or_else(|| config.kafka_addr.to_string());
    let done = match args.what {
        What::Create => make(&config, &brokers, args.output).await,
        What::Check => check(&config, &brokers, args.output).await,
    };
    done.unwrap_or_else(|error| {
        eprintln!("error[UNREACHABLE] {brokers}: {error:#}");
        ExitCode::from(EXIT_UNREACHABLE)
    })
}

async fn make(config: &Config, brokers: &str, output: Output) -> anyhow::Result<ExitCode> {
    let made = create(brokers, &config.topic_prefix, config.topic_partitions, PATIENCE).await?;
    let word = |made: &Made| if *made == Made::Created { "created" } else { "existed" }.to_owned();
    Ok(match output {
        Output::Json => {
            let rows: Vec<_> = made.iter().map(|(name, made)| serde_json::json!({"topic": name, "result": made})).collect();
            output::json(&rows)
        }
        Output::Table => output::table(["TOPIC", "RESULT"], made.iter().map(|(name, made)| [name.clone(), word(made)])),
    })
}

async fn check(config: &Config, brokers: &str, output: Output) -> anyhow::Result<ExitCode> {
    let there = list(brokers, PATIENCE).await?;
    let wanted = topics::ALL.iter().map(|topic| topics::prefixed(&config.topic_prefix, topic));
    let (mut found, mut missing): (Vec<&Topic>, bool) = (Vec::new(), false);
    for name in wanted {
        if let Some(topic) = there.iter().find(|topic| topic.name == name) {
            found.push(topic);
        } else {
            missing = true;
            eprintln!("error[TOPIC_MISSING] {name}: is not there; run `minishop topics create`");
        }
    }
    for topic in found.iter().filter(|topic| topic.replicas < SAFE_REPLICAS) {
        eprintln!("warning {}: has {} replicas, {SAFE_REPLICAS} survive the loss of a broker", topic.name, topic.replicas);
    }
    let printed = match output {
        Output::Json => output::json(&found),
        Output::Table => output::table(
            ["TOPIC", "PARTITIONS", "REPLICAS"],
            found.iter().map(|topic| [topic.name.clone(), topic.partitions.to_string(), topic.replicas.to_string()]),
        ),
    };
    Ok(if missing { ExitCode::from(EXIT_NO) } else { printed })
}
