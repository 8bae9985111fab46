//! The relay between a real store and a real event log, both embedded.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::TimeDelta;
use minishop_broker::TopicSettings;
use minishop_core::clock::{ManualClock, from_millis};
use minishop_core::ids::EventId;
use minishop_platform::bus::consume::Start;
use minishop_platform::bus::produce::Compression;
use minishop_platform::bus::{Headers, Record, Tail};
use minishop_platform::ctx::{Metrics, Status};
use minishop_platform::hints::Hints;
use minishop_platform::relay::{Relay, RelayTask, Settings, shard_of};
use minishop_platform::store::{Journal, NewEvent, OutboxRow, Role, Store, sqlite};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const TOPIC: &str = "orders.created";
const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    store: Store,
    clock: Arc<ManualClock>,
    dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = Arc::new(ManualClock::at(from_millis(1_760_000_000_123)));
        let store = sqlite::open(&dir.path().join("minishop.db"), clock.clone(), true).await.expect("a fresh file opens");
        Self { store, clock, dir }
    }

    /// Commits events of one key, numbered in their values, and returns their rows.
    async fn commit(&self, key: &str, numbers: std::ops::Range<usize>) -> Vec<OutboxRow> {
        let events: Vec<NewEvent> = numbers.map(|n| event(key, n)).collect();
        let mut settlement = self.store.inbox.begin("test").await.expect("the store answers");
        let journal = Journal { events: events.clone(), ..Journal::default() };
        let ids = settlement.record(&journal).await.expect("the events are written");
        settlement.commit().await.expect("the commit succeeds");
        ids.into_iter().zip(events).map(|(id, event)| OutboxRow { id, event }).collect()
    }

    async fn emptied(&self) {
        let end = Instant::now() + PATIENCE;
        while self.store.outbox.stats().await.expect("the store answers").depth > 0 {
            assert!(Instant::now() < end, "rows still wait");
            tokio::task::yield_now().await;
        }
    }
}

fn event(key: &str, number: usize) -> NewEvent {
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

struct Running {
    relay: Relay,
    drain: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    fn start(world: &World, brokers: SocketAddr) -> Self {
        let settings = Settings {
            owner: "test".to_owned(),
            roles: vec![Role::Api, Role::Worker],
            brokers: brokers.to_string(),
            compression: Compression::default(),
            hints: Hints::default(),
        };
        let (relay, task) =
            RelayTask::new(world.store.outbox.clone(), settings, Status::default(), &Metrics::default()).expect("a relay");
        let drain = CancellationToken::new();
        let task = spawn(task.run(drain.clone()));
        Self { relay, drain, task }
    }

    async fn stop(self) {
        self.drain.cancel();
        self.task.await.expect("the relay does not panic").expect("the relay drains");
    }
}

#[expect(clippy::disallowed_methods, reason = "tests play boot's part")]
fn spawn<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(work)
}

/// Runs an event log with our topic until the test's runtime ends.
async fn event_log(dir: &Path, addr: SocketAddr) -> SocketAddr {
    let settings = minishop_broker::Settings::new(addr, dir.join("log.db"));
    let log = minishop_broker::open(settings).await.expect("a fresh log opens");
    let addr = log.addr();
    log.ensure_topic(TOPIC, 3, TopicSettings::default()).await.expect("the topic is made");
    spawn(log.run(CancellationToken::new()));
    addr
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Reads the numbers that were published, in the order of their partition.
async fn published(brokers: SocketAddr) -> Vec<usize> {
    let read = move || Tail::open(&brokers.to_string(), &[TOPIC.to_owned()], Start::Beginning)?.rest(PATIENCE);
    let records = tokio::task::spawn_blocking(read).await.expect("reading does not panic").expect("the log is read");
    records.iter().map(number).collect()
}

fn number(record: &Record) -> usize {
    let text = record.headers.get("n").expect("every event carries its number");
    assert_eq!(record.value.as_deref(), Some(text.as_bytes()), "value and headers belong together");
    text.parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_publishes_a_long_backlog_of_a_key_in_order() {
    let world = World::new().await;
    for start in (0..2_500).step_by(500) {
        world.commit("c1", start..start + 500).await;
    }
    let brokers = event_log(world.dir.path(), any_port()).await;
    let running = Running::start(&world, brokers);
    world.emptied().await;
    assert_eq!(published(brokers).await, (0..2_500).collect::<Vec<_>>());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_handed_over_behind_a_backlog_come_after_it_and_once() {
    let world = World::new().await;
    world.commit("c1", 0..1_200).await;
    let brokers = event_log(world.dir.path(), any_port()).await;
    let running = Running::start(&world, brokers);
    for start in (1_200..1_500).step_by(10) {
        running.relay.hand_over(world.commit("c1", start..start + 10).await);
    }
    // What the relay left to the table because it was still behind is found by the sweep, once it is 2 s old.
    world.clock.advance(TimeDelta::seconds(3));
    world.emptied().await;
    assert_eq!(published(brokers).await, (0..1_500).collect::<Vec<_>>());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_was_not_handed_over_is_published_by_the_sweep() {
    let world = World::new().await;
    let brokers = event_log(world.dir.path(), any_port()).await;
    let running = Running::start(&world, brokers);
    running.relay.settled().await;
    running.relay.hand_over(world.commit("c1", 0..1).await);
    world.emptied().await;
    world.commit("c1", 1..2).await;
    world.clock.advance(TimeDelta::seconds(3));
    world.emptied().await;
    assert_eq!(published(brokers).await, [0, 1]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_at_the_start_delays_and_loses_nothing() {
    let world = World::new().await;
    let free = std::net::TcpListener::bind(any_port()).expect("a free port").local_addr().expect("an address");
    let running = Running::start(&world, free);
    running.relay.settled().await;
    running.relay.hand_over(world.commit("c1", 0..100).await);
    assert_eq!(world.store.outbox.stats().await.expect("the store answers").depth, 100, "nothing goes before its report");
    let brokers = event_log(world.dir.path(), free).await;
    world.emptied().await;
    assert_eq!(published(brokers).await, (0..100).collect::<Vec<_>>());
    running.stop().await;
}
