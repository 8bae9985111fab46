//! A store, an event log and the relay between them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use minishop_broker::{Handle, TopicSettings};
use minishop_bus::consume::Start;
use minishop_bus::produce::Compression;
use minishop_bus::{Headers, Record, Tail};
use minishop_core::clock::from_millis;
use minishop_core::ids::EventId;
use minishop_platform::ctx::{Metrics, Status};
use minishop_platform::hints::Hints;
use minishop_platform::relay::{Relay, RelaySettings, RelayTask};
use minishop_store::{Journal, NewEvent, OutboxRow, Role, Store, shard_of, sqlite};
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub const TOPIC: &str = "orders.created";
/// Longer than the 30 s after which the client gives up on a missing topic.
pub const PATIENCE: Duration = Duration::from_mins(1);

pub struct World {
    pub store: Store,
    dir: tempfile::TempDir,
}

impl World {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = std::sync::Arc::new(minishop_core::clock::ManualClock::at(from_millis(1_760_000_000_123)));
        let store = sqlite::open(&dir.path().join("minishop.db"), clock, true).await.expect("a fresh file opens");
        Self { store, dir }
    }

    /// Commits events and returns their rows.
    pub async fn commit(&self, events: &[NewEvent]) -> Vec<OutboxRow> {
        let mut settlement = self.store.inbox.begin("test").await.expect("the store answers");
        let journal = Journal { events: events.to_vec(), ..Journal::default() };
        let numbers = settlement.record(&journal).await.expect("the events are written");
        settlement.commit().await.expect("the commit succeeds");
        numbers.into_iter().zip(journal.events).map(|(number, event)| OutboxRow::new(number, event)).collect()
    }

    /// Commits events of one key, each with its number as value.
    pub async fn commit_numbered(&self, key: &str, numbers: std::ops::Range<usize>) -> Vec<OutboxRow> {
        self.commit(&numbers.map(|n| event(key, n)).collect::<Vec<_>>()).await
    }

    /// Writes events and rolls back.
    pub async fn roll_back(&self, events: &[NewEvent]) {
        let mut settlement = self.store.inbox.begin("test").await.expect("the store answers");
        settlement.record(&Journal { events: events.to_vec(), ..Journal::default() }).await.expect("the events are written");
    }

    /// Returns how many rows wait.
    pub async fn waiting(&self) -> i64 {
        self.store.outbox.stats().await.expect("the store answers").depth
    }

    /// Runs a statement on a connection beside the store.
    pub async fn sql(&self, sql: &'static str) {
        let path = self.dir.path().join("minishop.db");
        let mut connection = SqliteConnection::connect(path.to_str().expect("UTF-8")).await.expect("the file opens");
        sqlx::query(sql).execute(&mut connection).await.expect("the statement runs");
    }

    /// Counts the rows of a table.
    pub async fn count(&self, table: &str) -> i64 {
        let path = self.dir.path().join("minishop.db");
        let mut connection = SqliteConnection::connect(path.to_str().expect("UTF-8")).await.expect("the file opens");
        let sql = AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        sqlx::query_scalar(sql).fetch_one(&mut connection).await.expect("the table is there")
    }
}

/// Waits until no row waits to be published.
pub async fn emptied(world: &World) {
    until("rows still wait", async || world.waiting().await == 0).await;
}

/// Waits until `is_so` returns true; panics with `otherwise` at the deadline.
pub async fn until(otherwise: &str, is_so: impl AsyncFn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < end, "{otherwise}");
        tokio::task::yield_now().await;
    }
}

pub fn event(key: &str, number: usize) -> NewEvent {
    NewEvent {
        shard: shard_of(Role::Api, key.as_bytes()),
        event_id: EventId(uuid::Uuid::from_u128(rand::random())),
        topic: TOPIC.to_owned(),
        record_key: Bytes::copy_from_slice(key.as_bytes()),
        order_id: None,
        order_version: None,
        payload: Some(Bytes::from(number.to_string())),
        headers: Headers::default().with("n", number.to_string()).encode(),
    }
}

/// Returns an event with an incompressible value of `bytes` bytes.
pub fn sized(key: &str, number: usize, bytes: usize) -> NewEvent {
    let payload = std::iter::repeat_with(rand::random::<[u8; 16]>).take(bytes / 16).flatten().collect();
    NewEvent { payload: Some(payload), ..event(key, number) }
}

pub struct Running {
    pub relay: Relay,
    pub status: Status,
    drain: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
    metrics: Metrics,
}

impl Running {
    pub fn start(world: &World, brokers: SocketAddr) -> Self {
        let settings = RelaySettings {
            owner: "test".to_owned(),
            roles: vec![Role::Api, Role::Worker],
            brokers: brokers.to_string(),
            compression: Compression::None,
            hints: Hints::default(),
        };
        let (status, metrics, drain) = (Status::default(), Metrics::default(), CancellationToken::new());
        let (relay, task) = RelayTask::new(&world.store, settings, status.clone(), &metrics).expect("a relay");
        let task = spawn(task.run(drain.clone()));
        Self { relay, status, drain, task, metrics }
    }

    pub async fn stop(self) {
        self.drain.cancel();
        self.task.await.expect("the relay does not panic").expect("the relay drains");
    }

    /// Reads a sample of the metrics.
    pub fn metric(&self, sample: &str) -> u64 {
        let mut text = String::new();
        self.metrics.with(|registry| prometheus_client::encoding::text::encode(&mut text, registry)).expect("text");
        let value = text.lines().find_map(|line| line.strip_prefix(&format!("minishop_{sample} ")));
        value.expect("a sample of this name").parse().expect("a number")
    }

    /// Returns what is wrong with a part, if anything is.
    pub fn fault(&self, part: &str) -> Option<String> {
        self.status.parts().into_iter().find(|(name, _)| *name == part).and_then(|(_, state)| state.err())
    }

    /// Returns the relay's note to operators.
    pub fn note(&self) -> Option<String> {
        self.status.notes().into_iter().find(|(part, _)| *part == "relay").map(|(_, note)| note)
    }
}

#[expect(clippy::disallowed_methods, reason = "tests play boot's part")]
fn spawn<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(work)
}

/// An event log that runs until the test's runtime ends.
pub struct Log {
    pub addr: SocketAddr,
    handle: Handle,
}

impl Log {
    pub async fn start(world: &World) -> Self {
        Self::start_at(world, any_port()).await
    }

    /// Starts with [`TOPIC`].
    pub async fn start_at(world: &World, addr: SocketAddr) -> Self {
        let log = Self::start_empty(world.dir.path().join("log.db"), addr).await;
        log.topic(TOPIC, TopicSettings::default().max_message_bytes).await;
        log
    }

    pub async fn start_without_topics(world: &World) -> Self {
        Self::start_empty(world.dir.path().join("log.db"), any_port()).await
    }

    async fn start_empty(file: PathBuf, addr: SocketAddr) -> Self {
        let log = minishop_broker::open(minishop_broker::Settings::new(addr, file)).await.expect("a fresh log opens");
        let (addr, handle) = (log.addr(), log.handle());
        spawn(log.run(CancellationToken::new()));
        Self { addr, handle }
    }

    /// Creates a topic that accepts batches of up to `max_message_bytes`.
    pub async fn topic(&self, name: &str, max_message_bytes: u32) {
        let settings = TopicSettings { max_message_bytes, ..TopicSettings::default() };
        self.handle.ensure_topic(name, 3, settings).await.expect("the topic is made");
    }

    /// Reads what was published, in partition order.
    pub async fn records(&self, topic: &str) -> Vec<Record> {
        let (brokers, topic) = (self.addr.to_string(), topic.to_owned());
        let read = move || Tail::open(&brokers, &[topic], Start::Beginning)?.rest(PATIENCE);
        tokio::task::spawn_blocking(read).await.expect("reading does not panic").expect("the log is read")
    }
}

pub fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Reads the numbers published to [`TOPIC`], in partition order.
pub async fn numbers(log: &Log) -> Vec<usize> {
    let records = log.records(TOPIC).await;
    let whole = |record: &Record| record.value.as_deref() == record.headers.get("n").map(str::as_bytes);
    assert!(records.iter().all(whole), "value and headers belong together");
    records.iter().map(number).collect()
}

pub fn number(record: &Record) -> usize {
    record.headers.get("n").expect("every event carries its number").parse().expect("a number")
}
