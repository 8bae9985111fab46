//! Connections that create orders, in a closed or an open loop.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use minishop_core::clock::Clock as _;
use minishop_core::ids::Ids as _;
use minishop_platform::clock::{SystemClock, SystemIds};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::connection::{Answer, Connection};
use super::endpoint::FAILING;
use super::progress;
use super::schedule::{self, Schedule};
use super::tally::Tally;
use super::target::Target;
use super::track::Track;

/// The number of customers.
const CUSTOMERS: u64 = 1000;

/// How long before the first request of an open loop all connections are ready.
const SOON: Duration = Duration::from_millis(10);

/// How much is sent, and for how long.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Number of connections, each with one request in flight.
    #[arg(long, value_name = "NUMBER", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..))]
    pub connections: u64,
    /// Duration of the load, in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: u64,
    /// Duration of a load before it that is not counted, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub warm_up: u64,
    /// Orders a second, at times fixed beforehand; latency counts from these times (open loop). Without it, each connection sends
    /// its next order after the answer (closed loop).
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: Option<u64>,
}

/// One load on a server.
#[derive(Debug, Clone)]
pub struct Load {
    pub target: Target,
    pub connections: u64,
    pub rate: Option<u64>,
    pub length: Duration,
    /// The percentage of customers whose orders the endpoint fails.
    pub failing: u64,
    /// Requests that are later than this are not sent any more.
    pub patience: Option<Duration>,
    /// Differs between loads, so that no idempotency key comes twice.
    pub id: Uuid,
}

type Shared = Arc<Mutex<Tally>>;

impl Load {
    /// A load with fresh idempotency keys.
    pub fn new(target: &Target, args: &Args, failing: u64) -> Self {
        let Args { connections, seconds, rate, .. } = *args;
        let id = SystemIds.next(SystemClock.now());
        Self { target: target.clone(), connections, rate, length: Duration::from_secs(seconds), failing, patience: None, id }
    }

    /// Returns the same load with another length and other idempotency keys.
    pub fn for_seconds(&self, seconds: u64) -> Self {
        Self { length: Duration::from_secs(seconds), id: SystemIds.next(SystemClock.now()), ..self.clone() }
    }

    /// Returns how many orders the open loop schedules; 0 for the closed loop.
    pub fn scheduled(&self) -> u64 {
        self.rate.map_or(0, |rate| schedule::before(self.length, rate))
    }

    /// Sends one order; a refusal is an error.
    pub async fn first(&self, track: &Track) -> anyhow::Result<()> {
        let mut connection = Connection::open(&self.target, 0).await?;
        match connection.order("bench-first", &format!("bench-{}-first", self.id)).await? {
            Answer::Accepted(order) => track.acknowledged(order, Instant::now(), true),
            Answer::Refused(code) => anyhow::bail!("the server refused the first order: {code}"),
        }
        Ok(())
    }

    /// Runs until all requests are answered. What `track` measures begins with it.
    pub async fn run(&self, track: &Arc<Track>, what: &str) -> anyhow::Result<Tally> {
        let connections = (0..usize::try_from(self.connections)?).map(|n| Connection::open(&self.target, n));
        let connections = futures::future::try_join_all(connections).await?;
        let begun = Instant::now() + if self.rate.is_some() { SOON } else { Duration::ZERO };
        track.begin(begun);
        let tally = Arc::new(Mutex::new(Tally::new(begun)));
        let count = || lock(&tally).accepts.len();
        progress::during(what, track, count, self.send(connections, begun, track, &tally)).await?;
        Ok(Arc::into_inner(tally).and_then(|tally| tally.into_inner().ok()).expect("all clients have ended, and none panicked"))
    }

    async fn send(&self, connections: Vec<Connection>, begun: Instant, track: &Arc<Track>, tally: &Shared) -> anyhow::Result<()> {
        let schedule = Arc::new(Schedule::new(begun, self.length, self.rate));
        let driver = tokio::task::spawn_blocking({
            let schedule = schedule.clone();
            move || schedule.drive()
        });
        let mut clients = JoinSet::new();
        for connection in connections.into_iter().enumerate() {
            clients.spawn(client(self.clone(), connection, schedule.clone(), track.clone(), tally.clone()));
        }
        while let Some(done) = clients.join_next().await {
            done??;
        }
        Ok(driver.await?)
    }

    /// Returns a request's customer, and whether the endpoint fails it.
    fn customer(&self, number: u64) -> (String, bool) {
        let customer = number % CUSTOMERS;
        // Failing customers are spread evenly.
        let fails = customer % 100 < self.failing;
        (format!("{}{customer}", if fails { FAILING } else { "bench-" }), fails)
    }
}

/// Sends orders on one connection. After a request without an answer it connects again.
async fn client(
    load: Load,
    (n, mut connection): (usize, Connection),
    schedule: Arc<Schedule>,
    track: Arc<Track>,
    tally: Shared,
) -> anyhow::Result<()> {
    while let Some(slot) = schedule.next().await {
        if load.patience.is_some_and(|patience| slot.intended.elapsed() > patience) {
            continue;
        }
        let (customer, fails) = load.customer(slot.number);
        let key = format!("bench-{}-{}", load.id, slot.number);
        let sent = Instant::now();
        let answer = connection.order(&customer, &key).await;
        let now = Instant::now();
        if let Ok(Answer::Accepted(order)) = &answer {
            track.acknowledged(*order, now, !fails);
        }
        lock(&tally).record(slot, sent, now, answer.as_ref().ok());
        if answer.is_err() {
            connection = Connection::open(&load.target, n).await?;
        }
    }
    Ok(())
}

fn lock(tally: &Shared) -> MutexGuard<'_, Tally> {
    tally.lock().expect("no holder panics")
}
