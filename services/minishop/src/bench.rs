//! `minishop bench`: loads a running server over REST and reads `orders.processed`, to measure from end to end.

mod endpoint;
mod load;
mod track;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use hdrhistogram::Histogram;
use minishop_platform::bus::consume::{Start, Tail};

use track::{Track, read_processed};

/// How long the first order may take: a new consumer group waits some seconds for its partitions.
const FIRST: Duration = Duration::from_mins(1);
/// How long accepted orders may take to be processed after the load.
const REST: Duration = Duration::from_secs(30);

/// What is loaded, with what, and for how long.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The REST address as host:port; of several APIs, separated by commas.
    #[arg(long, env = "MINISHOP_BENCH_HTTP", value_delimiter = ',', default_value = "127.0.0.1:3000")]
    http: Vec<String>,
    /// Bootstrap servers of the event log, to read `orders.processed`.
    #[arg(long, env = "KAFKA_BROKERS", default_value = "127.0.0.1:9092")]
    brokers: String,
    /// Prefix of the topics.
    #[arg(long, env = "MINISHOP_TOPIC_PREFIX", default_value = "")]
    topic_prefix: String,
    /// Connections, each with one request in flight.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Seconds of load.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Measure acceptance alone: does not wait for processed events, so no worker need run.
    #[arg(long)]
    accept_only: bool,
    /// Serve an endpoint at this address for webhook workers; it fulfils all orders except those of failing customers.
    #[arg(long, value_name = "ADDRESS")]
    endpoint: Option<std::net::SocketAddr>,
    /// How many of every hundred customers the endpoint fails; their orders are not awaited.
    #[arg(long, value_name = "NUMBER", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=99), requires = "endpoint")]
    failing: u64,
    /// Print JSON instead of lines.
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
            bail!("the first order was not seen processed within {FIRST:?}; does a worker run?");
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
        bail!("{} of {awaited} accepted orders were not seen processed within {REST:?}", awaited - processed);
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
