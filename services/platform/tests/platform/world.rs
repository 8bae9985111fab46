//! A store, an event log and the relay between them.

use std::net::SocketAddr;
use std::ops::{Deref, Range};

use bytes::Bytes;
use minishop_broker::TopicSettings;
use minishop_bus::{Headers, Record};
use minishop_platform::ctx::{Metrics, Status};
use minishop_platform::relay::{Relay, RelayTask};
use minishop_store::{Journal, NewEvent, OutboxRow, Role};
use minishop_testkit::ctx;
use minishop_testkit::database::Engine;
use minishop_testkit::fresh_store::FreshStore;
use minishop_testkit::log::{EmbeddedLog, any_port};
use minishop_testkit::metrics::sample;
use minishop_testkit::rows::{self, order_id};
use minishop_testkit::wait::becomes;
use minishop_testkit::{spawn, topics};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const TOPIC: &str = "orders.created";

pub struct World(FreshStore);

impl Deref for World {
    type Target = FreshStore;

    fn deref(&self) -> &FreshStore {
        &self.0
    }
}

impl World {
    pub async fn new() -> Self {
        Self::on(Engine::Sqlite).await.expect("needs no server")
    }

    /// Starts on a database; `None` if there is no server and that is permitted.
    pub async fn on(engine: Engine) -> Option<Self> {
        FreshStore::on(engine).await.map(Self)
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
    pub async fn commit_numbered(&self, key: &str, numbers: Range<usize>) -> Vec<OutboxRow> {
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
}

/// Waits until no row waits to be published.
pub async fn emptied(world: &World) {
    becomes("rows that wait", async || world.waiting().await, 0).await;
}

pub fn event(key: &str, number: usize) -> NewEvent {
    NewEvent {
        order_id: None,
        order_version: None,
        payload: Some(Bytes::from(number.to_string())),
        headers: Headers::default().with("n", number.to_string()).encode(),
        ..rows::event(Role::Api, key, order_id(), 1)
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
        let settings = ctx::relay("test", &Role::ALL, &brokers.to_string());
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
    pub fn metric(&self, name: &str) -> u64 {
        sample(&self.metrics, name).expect("a sample of this name")
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

/// An event log that ends with the test.
pub struct Log {
    pub addr: SocketAddr,
    embedded: EmbeddedLog,
    _dir: tempfile::TempDir,
}

impl Log {
    pub async fn start() -> Self {
        Self::start_at(any_port()).await
    }

    /// Starts with [`TOPIC`].
    pub async fn start_at(addr: SocketAddr) -> Self {
        let log = Self::start_empty(addr).await;
        log.topic(TOPIC, TopicSettings::default().max_message_bytes).await;
        log
    }

    pub async fn start_without_topics() -> Self {
        Self::start_empty(any_port()).await
    }

    async fn start_empty(addr: SocketAddr) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::start(minishop_broker::Settings::new(addr, dir.path().join("log.db"))).await;
        Self { addr: log.addr, embedded: log, _dir: dir }
    }

    /// Creates a topic that accepts batches of up to `max_message_bytes`.
    pub async fn topic(&self, name: &str, max_message_bytes: u32) {
        self.embedded.topic(name, 3, TopicSettings { max_message_bytes, ..TopicSettings::default() }).await;
    }

    /// Reads what was published, in partition order.
    pub async fn records(&self, topic: &str) -> Vec<Record> {
        topics::read(&self.addr.to_string(), topic).await
    }
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
