//! The relay between a real store and a real event log, both embedded.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking; clippy knows only the functions marked as tests")]

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
#[path = "relay/refusing.rs"]
mod refusing;
#[path = "relay/world.rs"]
mod world;

use minishop_platform::store::OutboxRow;
use world::{Log, Running, World, any_port, emptied, event, numbers};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_publishes_a_long_backlog_of_a_key_in_order() {
    let world = World::new().await;
    for start in (0..2_500).step_by(500) {
        world.commit_numbered("c1", start..start + 500).await;
    }
    let log = Log::start(&world).await;
    let running = Running::start(&world, log.addr);
    emptied(&world).await;
    assert_eq!(numbers(&log).await, (0..2_500).collect::<Vec<_>>());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_handed_over_behind_a_backlog_come_after_it_and_once() {
    let world = World::new().await;
    world.commit_numbered("c1", 0..1_200).await;
    let log = Log::start(&world).await;
    let running = Running::start(&world, log.addr);
    for start in (1_200..1_500).step_by(10) {
        running.relay.hand_over(world.commit_numbered("c1", start..start + 10).await);
    }
    emptied(&world).await;
    assert_eq!(numbers(&log).await, (0..1_500).collect::<Vec<_>>());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_nobody_handed_over_is_published() {
    let world = World::new().await;
    let log = Log::start(&world).await;
    let running = Running::start(&world, log.addr);
    running.relay.hand_over(world.commit_numbered("c1", 0..1).await);
    emptied(&world).await;
    world.commit_numbered("c1", 1..2).await;
    emptied(&world).await;
    assert_eq!(numbers(&log).await, [0, 1]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_published_in_the_order_of_their_commits_in_whatever_order_they_are_handed_over() {
    let world = World::new().await;
    let log = Log::start(&world).await;
    let running = Running::start(&world, log.addr);
    running.relay.hand_over(world.commit_numbered("c1", 0..1).await);
    emptied(&world).await;
    for start in (1..301).step_by(30) {
        // Of each thirty, nobody hands over the second ten, and the first comes last and twice.
        let mut parts = Vec::new();
        for part in 0..3 {
            parts.push(world.commit_numbered("c1", start + part * 10..start + part * 10 + 10).await);
        }
        running.relay.hand_over(parts.swap_remove(2));
        let first: Vec<OutboxRow> = parts.swap_remove(0);
        running.relay.hand_over(first.clone());
        running.relay.hand_over(first);
    }
    emptied(&world).await;
    assert_eq!(numbers(&log).await, (0..301).collect::<Vec<_>>());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_of_a_transaction_that_was_rolled_back_is_never_published() {
    let world = World::new().await;
    let log = Log::start(&world).await;
    let running = Running::start(&world, log.addr);
    running.relay.hand_over(world.commit_numbered("c1", 0..5).await);
    world.roll_back(&[event("c1", 77)]).await;
    running.relay.verify();
    running.relay.hand_over(world.commit_numbered("c1", 5..9).await);
    emptied(&world).await;
    assert_eq!(numbers(&log).await, (0..9).collect::<Vec<_>>());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_before_a_restart_is_not_published_again() {
    let world = World::new().await;
    let log = Log::start(&world).await;
    for start in (0..150).step_by(50) {
        let running = Running::start(&world, log.addr);
        running.relay.hand_over(world.commit_numbered("c1", start..start + 50).await);
        // What was handed over before the drain is published in it.
        running.stop().await;
        assert_eq!(world.waiting().await, 0);
    }
    assert_eq!(numbers(&log).await, (0..150).collect::<Vec<_>>());
    assert_eq!(world.count("outbox_event").await, 1, "of each shard the last row stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_at_the_start_delays_and_loses_nothing() {
    let world = World::new().await;
    let free = std::net::TcpListener::bind(any_port()).expect("a free port").local_addr().expect("an address");
    let running = Running::start(&world, free);
    world.commit_numbered("c1", 0..50).await;
    running.relay.hand_over(world.commit_numbered("c1", 50..100).await);
    assert_eq!(world.waiting().await, 100, "nothing goes before its report");
    let log = Log::start_at(&world, free).await;
    emptied(&world).await;
    assert_eq!(numbers(&log).await, (0..100).collect::<Vec<_>>());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_the_producer_holds_is_published_in_order_and_nothing_is_lost() {
    // Its queue takes 64 MiB.
    const ROWS: usize = 320;
    let world = World::new().await;
    let free = std::net::TcpListener::bind(any_port()).expect("a free port").local_addr().expect("an address");
    let running = Running::start(&world, free);
    for start in (0..ROWS).step_by(32) {
        let events: Vec<_> = (start..start + 32).map(|n| world::sized("c1", n, 250_000)).collect();
        running.relay.hand_over(world.commit(&events).await);
    }
    let log = Log::start_at(&world, free).await;
    emptied(&world).await;
    let records = log.records(world::TOPIC).await;
    assert_eq!(records.iter().map(world::number).collect::<Vec<_>>(), (0..ROWS).collect::<Vec<_>>());
    running.stop().await;
}
