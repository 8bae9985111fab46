//! Measures how fast a backlog is worked off: by the relay, and by a worker.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use minishop_bus::consume::Start;
use minishop_contracts::topics::{CREATED, PROCESSED};

use super::load::{self, Load};
use super::metrics::waiting_events;
use super::plot::{Line, Panel};
use super::reader::Reader;
use super::report::Report;
use super::roles::Role;
use super::target::{Protocol, Topics};
use super::track::Track;
use super::watched::Watched;
use super::{micros, per_second, progress};

/// How long the first event may take, and how long it may take until the next one.
const PATIENCE: Duration = Duration::from_mins(1);
/// An address where no broker listens.
const NOWHERE: &str = "127.0.0.1:1";
/// How often the outbox is looked at.
const POLL: Duration = Duration::from_millis(100);

/// How the backlog is made. PostgreSQL and Kafka must run; the roles are started by the measurement.
#[derive(Debug, Clone, clap::Args)]
pub struct Backlog {
    /// Protocol of the requests.
    #[arg(long, value_enum, default_value_t = Protocol::Rest)]
    protocol: Protocol,
    #[command(flatten)]
    topics: Topics,
    /// Number of connections, each with one request in flight.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..))]
    connections: u64,
    /// How long orders are accepted for the backlog, in seconds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
}

impl Backlog {
    async fn role(&self, name: &str, brokers: &str, prefix: &str) -> anyhow::Result<Role> {
        Role::start(&[name, "--kafka-brokers", brokers, "--topic-prefix", prefix], &[]).await
    }

    /// Accepts orders; returns how many.
    async fn fill(&self, api: &Role, track: &Arc<Track>) -> anyhow::Result<u64> {
        let load = load::Args { connections: self.connections, seconds: self.seconds, warm_up: 0, rate: None };
        let tally = Load::new(&api.target(self.protocol)?, &load, 0).run(track, "backlog").await?;
        ensure!(!tally.accepts.is_empty(), "no order was accepted; refused: {:?}", tally.refused);
        Ok(tally.accepts.len())
    }
}

/// Measures how fast the relay publishes events that were accepted while Kafka was away.
pub async fn relay_drain(args: &Backlog, prefix: &str) -> anyhow::Result<Report> {
    let track = Arc::new(Track::new());
    let reader = Reader::start(args.topics.open(prefix, CREATED, Start::End)?, &track);
    let cut_off = args.role("api", NOWHERE, prefix).await?;
    let orders = args.fill(&cut_off, &track).await?;
    ensure!(track.progress().processed == 0, "another process publishes the events; stop all others");
    cut_off.end().await?;
    let api = args.role("api", &args.topics.brokers, prefix).await?;
    let mut report = drained("relay-drain", "api", &api, &track, orders).await?;
    report.verdict("published", reader.verdict(&track).await?);
    api.end().await?;
    Ok(report)
}

/// Measures how fast a worker processes events that were published while no worker ran.
pub async fn catch_up(args: &Backlog, prefix: &str) -> anyhow::Result<Report> {
    let track = Arc::new(Track::new());
    let reader = Reader::start(args.topics.open(prefix, PROCESSED, Start::End)?, &track);
    let api = args.role("api", &args.topics.brokers, prefix).await?;
    let orders = args.fill(&api, &track).await?;
    let admin = api.address("admin")?;
    while waiting_events(&admin).await? > 0 {
        tokio::time::sleep(POLL).await;
    }
    ensure!(track.progress().processed == 0, "a worker is running; stop all workers");
    let worker = args.role("worker", &args.topics.brokers, prefix).await?;
    let mut report = drained("catch-up", "worker", &worker, &track, orders).await?;
    report.verdict("processed", reader.verdict(&track).await?);
    worker.end().await?;
    api.end().await?;
    Ok(report)
}

/// Waits until the backlog is worked off by `role`, and reports how long it took.
async fn drained(benchmark: &str, name: &str, role: &Role, track: &Arc<Track>, orders: u64) -> anyhow::Result<Report> {
    let watched = Watched::role(name, role)?;
    // Everything that it did since its start counts.
    let before = watched.nothing();
    track.begin(role.started);
    progress::during("drain", track, || orders, track.settled(PATIENCE)).await;
    let measured = track.measured();
    let mut report = Report::new(benchmark);
    report.count("backlog", "orders in the backlog", orders);
    report.count("drained", "worked off", measured.processed);
    report.time("startToFirstMicros", "start of the process to the first event", micros(measured.first - role.started));
    report.time("firstToLastMicros", "first to last event", micros(measured.last - measured.first));
    report.count(
        "drainPerSecond",
        "events a second, first to last",
        per_second(measured.processed, measured.last - measured.first),
    );
    watched.report(&mut report, &before, measured.processed).await;
    report.panel(Panel {
        title: "Events a second".to_owned(),
        lines: vec![Line::new("drained", &measured.over_time.counts(), 1.0)],
    });
    Ok(report)
}
