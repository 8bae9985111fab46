//! `minishop bench`: loads a running server over REST and reads `orders.processed`, to measure from end to end.

mod endpoint;
mod load;
mod track;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use hdrhistogram::Histogram;
use minishop_bus::consume::{Start, Tail};

use track::{Track, read_processed};

/// How long the first order may take: a new consumer group waits some seconds for its partitions.
const FIRST: Duration = Duration::from_mins(1);
/// How long accepted orders may take to be processed after the load.
const REST: Duration = Duration::from_secs(30);

/// What is loaded, with what, and for how long.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// REST address as host:port; for several APIs, separated by commas.
    #[arg(long, env = "MINISHOP_BENCH_HTTP", value_delimiter = ',', default_value = "127.0.0.1:3000")]
    http: Vec<String>,
    /// Kafka bootstrap servers, to read `orders.processed`.
    #[arg(long, env = "KAFKA_BROKERS", default_value = "127.0.0.1:9092")]
    brokers: String,
    /// Prefix of all topics.
    #[arg(long, env = "MINISHOP_TOPIC_PREFIX", default_value = "")]
    topic_prefix: String,
    /// Number of connections, each with one request in flight.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Duration of the load, in seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Measure only acceptance: do not wait for processed events, so that no worker is needed.
    #[arg(long)]
    accept_only: bool,
    /// Serve a webhook endpoint for workers at this address, as IP:port; it fulfils all orders except those of failing customers.
    #[arg(long, value_name = "ADDRESS")]
    endpoint: Option<std::net::SocketAddr>,
    /// Percentage of customers whose orders the endpoint fails, 0 to 99; their orders are not awaited.
    #[arg(long, value_name = "NUMBER", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=99), requires = "endpoint")]
    failing: u64,
    /// Print the JSON on one line instead of indented.
    #[arg(long)]
    json: bool,
}

/// Runs the load and turns its outcome into an exit code.
pub async fn command(args: Args) -> ExitCode {
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Waits until one order is processed, runs the load, waits until all accepted orders are processed, and prints the figures.
async fn run(args: Args) -> anyhow::Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    if let Some(address) = args.endpoint {
        tasks.spawn(endpoint::serve(endpoint::bind(address).await?));
    }
    let tail = Tail::open(&args.brokers, &[format!("{}orders.processed", args.topic_prefix)], Start::End)?;
    let track = Arc::new(Track::default());
    let reader = tokio::task::spawn_blocking({
        let track = track.clone();
        move || read_processed(&track, &tail)
    });
    if !args.accept_only {
        load::one(&args, &track).await?;
        track.processed(1, FIRST).await;
        if track.begin() == 0 {
            bail!("no processed event of the first order within {FIRST:?}; check that a worker is running");
        }
    }
    let begun = Instant::now();
    let (accepts, awaited) = load::run(&args, &track, begun + Duration::from_secs(args.seconds)).await?;
    let loaded = begun.elapsed();
    if !args.accept_only {
        track.processed(awaited, REST).await;
    }
    let whole = begun.elapsed();
    track.end();
    reader.await??;
    report(&args, &track, &accepts, awaited, (loaded, whole))
}

fn report(
    args: &Args,
    track: &Track,
    accepts: &Histogram<u64>,
    awaited: u64,
    (loaded, whole): (Duration, Duration),
) -> anyhow::Result<()> {
    let (processed, settled) = track.settled();
    let quantiles = |h: &Histogram<u64>| serde_json::json!({"p50": h.value_at_quantile(0.5), "p99": h.value_at_quantile(0.99), "max": h.max()});
    let figures = serde_json::json!({
        "connections": args.connections,
        "failingCustomersPercent": args.failing,
        "accepted": accepts.len(),
        "processed": processed,
        "acceptsPerSecond": per_second(accepts.len(), loaded),
        "endToEndPerSecond": per_second(processed, whole),
        "acceptMicros": quantiles(accepts),
        "createdToProcessedMicros": quantiles(&settled),
    });
    if args.json {
        println!("{figures}");
    } else {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    }
    if processed < awaited && !args.accept_only {
        bail!("no processed event of {} of {awaited} accepted orders within {REST:?}", awaited - processed);
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate for people")]
fn per_second(count: u64, time: Duration) -> u64 {
    (count as f64 / time.as_secs_f64()) as u64
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
