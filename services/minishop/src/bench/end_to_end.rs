//! Measures acceptance, and the way from the request to the processed event.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use minishop_bus::consume::Start;
use minishop_contracts::topics::PROCESSED;
use serde_json::json;
use tokio::task::JoinSet;

use super::cold_start::Place;
use super::load::{self, Load};
use super::plot::{Line, Panel};
use super::reader::Reader;
use super::report::Report;
use super::series::Series;
use super::tally::Tally;
use super::target::{Protocol, Target, Topics};
use super::track::Track;
use super::watched::Watched;
use super::{endpoint, per_second, progress};

/// How long the first order may take: a new consumer group waits some seconds for its partitions.
const FIRST: Duration = Duration::from_mins(1);
/// How long it may take until the next of the accepted orders is processed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A load on servers, and what is observed beside it.
#[derive(Debug, Clone, clap::Args)]
pub struct Accept {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    load: load::Args,
    #[command(flatten)]
    watched: Watched,
}

/// The same, with the event log.
#[derive(Debug, Clone, clap::Args)]
pub struct EndToEnd {
    #[command(flatten)]
    accept: Accept,
    #[command(flatten)]
    topics: Topics,
}

/// A load whose orders workers fulfil by calling this program.
#[derive(Debug, Clone, clap::Args)]
pub struct Webhook {
    #[command(flatten)]
    load: EndToEnd,
    /// Address to serve, as IP:port; the workers' `MINISHOP_WEBHOOK_URL` must name it.
    #[arg(long, value_name = "ADDRESS")]
    endpoint: SocketAddr,
    /// Percentage of customers whose orders the endpoint fails, 0 to 99; their orders are not awaited.
    #[arg(long, value_name = "NUMBER", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=99))]
    failing: u64,
}

/// A load on all roles in one process, started for it.
#[derive(Debug, Clone, clap::Args)]
pub struct Embedded {
    #[command(flatten)]
    place: Place,
    /// Protocol of the requests.
    #[arg(long, value_enum, default_value_t = Protocol::Rest)]
    protocol: Protocol,
    #[command(flatten)]
    load: load::Args,
}

/// Measures acceptance alone.
pub async fn accept(args: &Accept) -> anyhow::Result<Report> {
    let track = Arc::new(Track::new());
    let load = Load::new(&args.target, &args.load, 0);
    load.first(&track).await?;
    if args.load.warm_up > 0 {
        load.for_seconds(args.load.warm_up).run(&track, "warm-up").await?;
    }
    let before = args.watched.snapshot().await?;
    let tally = load.run(&track, "load").await?;
    let mut report = Report::new("accept");
    accepted(&mut report, &load, args.load.warm_up, &tally)?;
    args.watched.report(&mut report, &before, tally.accepts.len()).await;
    report.panel(accepts_panel(&load, &tally, None));
    report.panel(latency_panel("Request to acknowledgement, ms", &tally.over_time));
    Ok(report)
}

/// Measures to the processed event, with workers that call this program.
pub async fn webhook(args: &Webhook, prefix: &str) -> anyhow::Result<Report> {
    let mut tasks = JoinSet::new();
    tasks.spawn(endpoint::serve(endpoint::bind(args.endpoint).await?));
    let mut report = measure("webhook", &args.load, prefix, args.failing).await?;
    report.count("failingCustomersPercent", "failing customers, percent", args.failing);
    Ok(report)
}

/// Measures to the processed event. The topics' names begin with `prefix`.
pub async fn end_to_end(args: &EndToEnd, prefix: &str) -> anyhow::Result<Report> {
    measure("end-to-end", args, prefix, 0).await
}

/// Measures to the processed event, in a new process on embedded parts.
pub async fn embedded(args: &Embedded) -> anyhow::Result<Report> {
    let scratch = args.place.scratch("embedded")?;
    let role = scratch.start().await?;
    let watched = Watched::role("minishop", &role)?;
    let accept = Accept { target: role.target(args.protocol)?, load: args.load.clone(), watched };
    let topics = Topics { brokers: role.address("kafka")? };
    let report = measure("embedded", &EndToEnd { accept, topics }, "", 0).await?;
    role.end().await?;
    Ok(report)
}

async fn measure(
    benchmark: &str,
    EndToEnd { accept: args, topics }: &EndToEnd,
    prefix: &str,
    failing: u64,
) -> anyhow::Result<Report> {
    let track = Arc::new(Track::new());
    let reader = Reader::start(topics.open(prefix, PROCESSED, Start::End)?, &track);
    let load = Load::new(&args.target, &args.load, failing);
    load.first(&track).await?;
    ensure!(track.settled(FIRST).await, "no processed event of the first order within {FIRST:?}; check that a worker is running");
    if args.load.warm_up > 0 {
        load.for_seconds(args.load.warm_up).run(&track, "warm-up").await?;
        ensure!(track.settled(PATIENCE).await, "no order of the warm-up was processed within {PATIENCE:?}");
    }
    let before = args.watched.snapshot().await?;
    let tally = load.run(&track, "load").await?;
    progress::during("rest", &track, || tally.accepts.len(), track.settled(PATIENCE)).await;
    let measured = track.measured();
    let mut report = Report::new(benchmark);
    accepted(&mut report, &load, args.load.warm_up, &tally)?;
    report.count("processed", "processed", measured.processed);
    report.count("endToEndPerSecond", "processed a second", per_second(measured.processed, measured.last - tally.begun));
    report.times("createdToProcessedMicros", "acknowledgement to processed event", &measured.took);
    args.watched.report(&mut report, &before, measured.processed).await;
    report.verdict("processed", reader.verdict(&track).await?);
    report.detail("processedOverTime", measured.over_time.json());
    report.panel(accepts_panel(&load, &tally, Some(&measured.over_time)));
    report.panel(latency_panel("Request to acknowledgement, ms", &tally.over_time));
    report.panel(latency_panel("Acknowledgement to processed event, ms", &measured.over_time));
    Ok(report)
}

/// Adds what was sent and accepted.
pub fn accepted(report: &mut Report, load: &Load, warm_up: u64, tally: &Tally) -> anyhow::Result<()> {
    ensure!(
        !tally.accepts.is_empty(),
        "no order was accepted; refused: {:?}, without an answer: {}",
        tally.refused,
        tally.failed
    );
    report.text("protocol", "protocol", load.target.protocol.name());
    report.count("connections", "connections", load.connections);
    report.count("seconds", "seconds", load.length.as_secs());
    report.count("warmUpSeconds", "seconds of warm-up", warm_up);
    match load.rate {
        None => report.text("loop", "loop", "closed"),
        Some(rate) => {
            report.text("loop", "loop", "open");
            report.count("rate", "orders a second, as scheduled", rate);
            report.count("unsent", "scheduled, but not sent", load.scheduled().saturating_sub(tally.sent));
            report.count("waited", "sent late, as all connections were busy", tally.waited);
            report.times("lateMicros", "the generator's own delay", &tally.late);
        }
    }
    report.count("accepted", "accepted", tally.accepts.len());
    report.count("refused", "refused", tally.refused.values().sum());
    report.detail("refusals", json!(tally.refused));
    report.count("failed", "without an answer", tally.failed);
    report.count("acceptsPerSecond", "accepted a second", per_second(tally.accepts.len(), tally.length()));
    let from = if load.rate.is_some() { "scheduled time to acknowledgement" } else { "request to acknowledgement" };
    report.times("acceptMicros", from, &tally.accepts);
    report.detail("acceptedOverTime", tally.over_time.json());
    Ok(())
}

fn accepts_panel(load: &Load, tally: &Tally, processed: Option<&Series>) -> Panel {
    let mut lines = vec![Line::new("accepted", &tally.over_time.counts_until(load.length.as_secs()), 1.0)];
    lines.extend(processed.map(|series| Line::new("processed", &series.counts(), 1.0)));
    Panel { title: "Orders a second".to_owned(), lines }
}

fn latency_panel(title: &str, series: &Series) -> Panel {
    let line = |name, quantile| Line::new(name, &series.quantiles(quantile), 1000.0);
    Panel { title: title.to_owned(), lines: vec![line("p50", 0.5), line("p99", 0.99)] }
}
