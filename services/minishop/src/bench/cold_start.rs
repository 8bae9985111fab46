//! Measures how soon a process on embedded parts works, from its start.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use hdrhistogram::Histogram;
use minishop_bus::consume::Start;
use minishop_contracts::topics::PROCESSED;

use super::load::{self, Load};
use super::reader::Reader;
use super::report::Report;
use super::roles::Role;
use super::target::{Protocol, Topics};
use super::track::Track;
use super::{micros, processes};

/// How long the first order may take.
const FIRST: Duration = Duration::from_mins(1);

/// How often a process is started, and where its data is.
#[derive(Debug, Clone, clap::Args)]
pub struct ColdStart {
    #[command(flatten)]
    place: Place,
    /// Protocol of the first order.
    #[arg(long, value_enum, default_value_t = Protocol::Rest)]
    protocol: Protocol,
    /// Number of starts, each on an empty directory.
    #[arg(long, value_name = "NUMBER", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
}

/// Where embedded parts store their data.
#[derive(Debug, Clone, clap::Args)]
pub struct Place {
    /// Directory for the data, which is removed afterwards. It must be on the disk that is measured.
    #[arg(long, value_name = "DIRECTORY", default_value = "/var/tmp")]
    dir: PathBuf,
}

/// A new directory, removed with this value.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Place {
    /// Creates an empty directory.
    pub fn scratch(&self, name: &str) -> anyhow::Result<Scratch> {
        let path = self.dir.join(format!("minishop-bench-{}-{name}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Scratch(path))
    }
}

impl Scratch {
    /// Starts all roles on embedded parts in this directory.
    pub async fn start(&self) -> anyhow::Result<Role> {
        let words = ["up", "--kafka-addr", "127.0.0.1:0", "--data-dir", &self.0.to_string_lossy()];
        Role::start(&words, &["DATABASE_URL", "DATABASE_URL_FILE", "KAFKA_BROKERS", "REDIS_URL", "MINISHOP_CONFIG"]).await
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Starts a process several times on an empty directory, with one order each.
pub async fn cold_start(args: &ColdStart) -> anyhow::Result<Report> {
    let [mut ready, mut accepted, mut processed] =
        [(); 3].map(|()| Histogram::new(3).expect("three digits are a lawful precision"));
    let mut resident = 0;
    for run in 0..args.runs {
        let scratch = args.place.scratch(&run.to_string())?;
        let role = scratch.start().await?;
        ready.record(micros(role.started.elapsed()))?;
        let track = Arc::new(Track::new());
        let load = load::Args { connections: 1, seconds: 1, warm_up: 0, rate: None };
        Load::new(&role.target(args.protocol)?, &load, 0).first(&track).await?;
        accepted.record(micros(role.started.elapsed()))?;
        let topics = Topics { brokers: role.address("kafka")? };
        let _reader = Reader::start(topics.open("", PROCESSED, Start::Beginning)?, &track);
        ensure!(track.settled(FIRST).await, "the first order was not processed within {FIRST:?}");
        processed.record(micros(track.measured().last - role.started))?;
        resident = resident.max(processes::resident_kib(role.pid()?)?);
        role.end().await?;
    }
    let mut report = Report::new("cold-start");
    report.text("protocol", "protocol", args.protocol.name());
    report.count("runs", "starts", args.runs);
    report.times("readyMicros", "start to ready", &ready);
    report.times("firstAcceptMicros", "start to first acknowledgement", &accepted);
    report.times("firstProcessedMicros", "start to first processed event", &processed);
    report.count("residentKiB", "memory after one order, most, KiB", resident);
    Ok(report)
}
