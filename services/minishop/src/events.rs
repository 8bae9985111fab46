//! `minishop events`: follows published events, outside any consumer group, and publishes past events again.

mod replay;

use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use minishop_bus::Record;
use minishop_bus::consume::{Start, Tail};
use minishop_contracts::topics;
use minishop_platform::config::Config;

use crate::output::{self, Output, visible};
use crate::store::Failure;

/// What to do with events.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Publish the events of past orders again, to another topic, for a new consumer.
    Replay(replay::Args),
    /// Print events as they arrive, until interrupted.
    Tail {
        /// Start at the oldest event of the topics instead of the next one.
        #[arg(long)]
        from_beginning: bool,
        /// Only this topic, named without prefix; may be repeated.
        #[arg(long = "topic", value_parser = clap::builder::PossibleValuesParser::new(topics::ALL))]
        topics: Vec<String>,
        /// Stop after this many events.
        #[arg(long)]
        limit: Option<usize>,
        /// Output format: lines of text, or one JSON object per line.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
}

/// Runs the command on the configured brokers, or on the embedded log of a running server.
pub async fn run(args: Args, config: Config) -> ExitCode {
    let (from_beginning, only, limit, output) = match args.what {
        What::Tail { from_beginning, topics, limit, output } => (from_beginning, topics, limit, output),
        What::Replay(args) => return replay::run(args, config).await,
    };
    let brokers = config.brokers();
    let names = topics::ALL.iter().filter(|topic| only.is_empty() || only.iter().any(|name| name == *topic));
    let names: Vec<String> = names.map(|topic| topics::prefixed(&config.topic_prefix, topic)).collect();
    let start = if from_beginning { Start::Beginning } else { Start::End };
    let follow = {
        let brokers = brokers.clone();
        move || follow(&brokers, &names, start, limit, output)
    };
    match tokio::task::spawn_blocking(follow).await.map_err(anyhow::Error::from).and_then(|followed| followed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => Failure::Unreachable(format!("{brokers}: {error:#}")).print(),
    }
}

fn follow(brokers: &str, topics: &[String], start: Start, limit: Option<usize>, printed: Output) -> anyhow::Result<()> {
    let tail = Tail::open(brokers, topics, start)?;
    let mut seen = 0;
    while limit.is_none_or(|limit| seen < limit) {
        let Some(record) = tail.next(Duration::from_millis(200))? else { continue };
        seen += 1;
        let line = match printed {
            Output::Table => text(&record),
            Output::Json => json(&record).to_string(),
        };
        if !output::line(&line) {
            // Standard output is closed.
            return Ok(());
        }
    }
    Ok(())
}

fn lossy(bytes: Option<&bytes::Bytes>) -> Option<String> {
    bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

fn text(record: &Record) -> String {
    let shown = |bytes| lossy(bytes).map_or_else(|| "null".to_owned(), |text| visible(&text));
    let (key, value) = (shown(record.key.as_ref()), shown(record.value.as_ref()));
    format!("{} {}@{} {key} {value}", record.topic, record.partition, record.offset)
}

fn json(record: &Record) -> serde_json::Value {
    let value = record.value.as_ref().map(|value| {
        serde_json::from_slice(value).unwrap_or_else(|_| serde_json::Value::String(String::from_utf8_lossy(value).into_owned()))
    });
    let headers: Vec<_> = record.headers.0.iter().map(|(name, value)| serde_json::json!([name, lossy(value.as_ref())])).collect();
    serde_json::json!({
        "topic": &*record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "key": lossy(record.key.as_ref()),
        "headers": headers,
        "value": value,
    })
}
