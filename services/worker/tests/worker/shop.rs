//! A processor over a fresh store, with access to what it wrote.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::TimeDelta;
use futures::FutureExt;
use minishop_bus::Record;
use minishop_bus::produce::Compression;
use minishop_contracts::key::EventKey;
use minishop_core::backoff::Backoff;
use minishop_core::clock::{Clock, ManualClock, Timestamp, from_millis};
use minishop_core::ids::{Ids, OrderId};
use minishop_core::position::Position;
use minishop_platform::clock::SystemIds;
use minishop_platform::config::{Config, Handling};
use minishop_platform::ctx::{Ctx, Metrics, Status};
use minishop_platform::hints::{Changes, Hints};
use minishop_platform::relay::{RelaySettings, RelayTask};
use minishop_platform::telemetry::LogFormat;
use minishop_store::postgres::{self, PostgresSettings};
use minishop_store::{OutboxRow, Role, Span, Store, StoreError, sqlite as sqlite_store};
use minishop_worker::handlers::HandlerPlace;
use minishop_worker::upcast::Versions;
use minishop_worker::{LotTask, Processor, WorkerMetrics, WorkerShared};
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Connection, FromRow, PgConnection, SqliteConnection};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub struct Shop {
    pub processor: Processor,
    pub store: Store,
    ctx: Ctx,
    relay: Mutex<Option<RelayTask>>,
    home: Home,
}

/// A worker whose stream and lot are stepped by hand, with its own metrics.
pub struct Hands {
    pub processor: Processor,
    pub lot: LotTask,
    pub ctx: Ctx,
}

impl Hands {
    /// Settles records.
    pub async fn stream(&self, records: &[Record]) {
        self.processor.step(records, &[]).await.unwrap();
    }

    /// Runs the lot for what is due now, and no more; returns how many rows it claimed.
    pub async fn lot(&mut self) -> usize {
        self.lot.step().await.unwrap()
    }

    /// Runs the lot until nothing is due; returns how many rows it claimed.
    pub async fn drain(&mut self) -> usize {
        let mut all = 0;
        loop {
            match self.lot().await {
                0 => return all,
                more => all += more,
            }
        }
    }

    pub fn metric(&self, sample: &str) -> u64 {
        metric(&self.ctx.metrics, sample)
    }
}

/// Draws the longest wait of every backoff, and otherwise random bits.
#[derive(Debug)]
struct LongestWaits;

impl Ids for LongestWaits {
    fn random(&self) -> [u8; 10] {
        let mut bytes = SystemIds.random();
        bytes[..4].fill(0xff);
        bytes
    }

    fn next(&self, at: Timestamp) -> Uuid {
        SystemIds.next(at)
    }
}

enum Home {
    Sqlite { path: PathBuf, clock: Arc<ManualClock>, _dir: tempfile::TempDir },
    Postgres { url: String },
}

pub fn now() -> Timestamp {
    from_millis(1_760_000_000_000)
}

pub async fn sqlite() -> Shop {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("minishop.db");
    let clock = Arc::new(ManualClock::at(now()));
    let store = sqlite_store::open(&path, clock.clone(), true).await.unwrap();
    shop(store, Home::Sqlite { path, clock, _dir: dir })
}

/// Opens the store of another process by its address: a file's path, or a database URL.
pub async fn open(address: &str, clock: Arc<dyn Clock>) -> Store {
    if address.starts_with("postgres://") {
        let settings = PostgresSettings { app_name: "minishop-test".into(), migrate: false };
        return postgres::connect(address, &settings).await.unwrap();
    }
    sqlite_store::open(address.as_ref(), clock, false).await.unwrap()
}

/// Runs a test on a fresh database, and drops it even when the test fails.
pub async fn on_postgres(test: impl AsyncFnOnce(Shop)) {
    let Some(server) = server("MINISHOP_TEST_POSTGRES") else { return };
    let name = format!("worker_{}", uuid::Uuid::from_u128(rand::random()).simple());
    let url = format!("{}/{name}", server.rsplit_once('/').unwrap().0);
    run_sql(&server, &format!("CREATE DATABASE {name}")).await;
    let settings = PostgresSettings { app_name: "minishop-test".into(), migrate: true };
    let store = postgres::connect(&url, &settings).await.unwrap();
    let outcome = AssertUnwindSafe(test(shop(store, Home::Postgres { url }))).catch_unwind().await;
    run_sql(&server, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

#[expect(clippy::disallowed_methods, reason = "names the server for tests")]
pub fn server(variable: &str) -> Option<String> {
    let server = std::env::var(variable).ok();
    let may_be_missing = std::env::var("MINISHOP_TEST_ALLOW_MISSING").is_ok_and(|value| value == "1");
    assert!(
        server.is_some() || may_be_missing,
        "{variable} is not set: point it to a server, or set MINISHOP_TEST_ALLOW_MISSING=1 to go without"
    );
    server
}

async fn run_sql(url: &str, sql: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
}

/// Builds the context of a worker, and its relay.
pub fn ctx(store: &Store, brokers: &str, owner: &str, prefix: &str) -> (Ctx, RelayTask) {
    let (status, metrics) = (Status::default(), Metrics::default());
    let settings = RelaySettings {
        owner: owner.to_owned(),
        roles: vec![Role::Worker],
        brokers: brokers.to_owned(),
        compression: Compression::None,
        hints: Hints::default(),
    };
    let (relay, task) = RelayTask::new(store, settings, status.clone(), &metrics).unwrap();
    let ctx = Ctx {
        config: Arc::new(config(prefix)),
        clock: Arc::new(ManualClock::at(now())),
        ids: Arc::new(SystemIds),
        store: store.clone(),
        brokers: brokers.to_owned(),
        relay,
        changes: Changes::default(),
        metrics,
        drain: CancellationToken::new(),
        status,
    };
    (ctx, task)
}

/// Reads a metric sample, such as `worker_events_total{outcome="copy"}`.
pub fn sample(metrics: &Metrics, sample: &str) -> Option<u64> {
    let mut text = String::new();
    metrics.with(|registry| prometheus_client::encoding::text::encode(&mut text, registry)).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(&format!("minishop_{sample} ")))?;
    Some(value.parse().unwrap())
}

/// Reads a metric sample; 0 if there is none.
pub fn metric(metrics: &Metrics, name: &str) -> u64 {
    sample(metrics, name).unwrap_or_default()
}

fn shop(store: Store, home: Home) -> Shop {
    // No broker listens there: events stay in the outbox, where the tests read them.
    let (ctx, task) = ctx(&store, "127.0.0.1:1", "test", "");
    let metrics = WorkerMetrics::register(&ctx.metrics);
    let setup = WorkerShared::new(HandlerPlace::Stream, Versions::current());
    Shop { processor: Processor::new(&ctx, metrics, setup), store, ctx, relay: Mutex::new(Some(task)), home }
}

fn config(prefix: &str) -> Config {
    let free: SocketAddr = "127.0.0.1:0".parse().unwrap();
    Config {
        http_addr: free,
        grpc_addr: free,
        admin_addr: free,
        kafka_addr: free,
        data_dir: PathBuf::new(),
        database_url: None,
        redis_url: None,
        kafka_brokers: None,
        topic_prefix: prefix.to_owned(),
        event_key: EventKey::Customer,
        kafka_group: format!("{prefix}g"),
        kafka_session_timeout: Duration::from_secs(6),
        kafka_compression: Compression::None,
        kafka_instance_id: None,
        topic_partitions: 8,
        require_idempotency_key: false,
        reflection: true,
        migrate: true,
        drain_wait: Duration::ZERO,
        outbox_limit_rows: 1_000_000,
        outbox_limit_age: Duration::from_hours(1),
        inbox_retention: Duration::from_hours(14 * 24),
        audit_retention: Duration::from_hours(365 * 24),
        handling: Handling::Confirm,
        retry: Backoff { base: Duration::from_mins(1), factor: 4, cap: Duration::from_hours(12) },
        retry_attempts: 8,
        log_format: LogFormat::Pretty,
        log: None,
    }
}

/// A row of the parking lot.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Parked {
    pub record_key: Vec<u8>,
    pub blocks: bool,
    pub state: String,
    pub r#type: Option<String>,
    pub needs_type: Option<String>,
    pub source_offset: i64,
    pub raw_key: Option<Vec<u8>>,
    pub raw_value: Option<Vec<u8>>,
    pub error_code: Option<String>,
    pub error_message: Option<String>,
    pub attempts: i32,
}

/// The visible state of an order.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Order {
    pub client_id: String,
    pub status: String,
    pub version: i32,
    pub adopted: bool,
    pub total_minor: i64,
    pub correlation_id: String,
}

/// Everything that a record can change.
#[derive(Debug, PartialEq)]
pub struct Snapshot {
    counts: Vec<i64>,
    orders: Vec<Order>,
    parked: Vec<Parked>,
    outbox: Vec<OutboxRow>,
}

impl Shop {
    /// Settles records; asserts that all of them are settled.
    pub async fn step(&self, records: &[Record]) {
        let mut positions = self.processor.step(records, &[]).await.unwrap();
        positions.sort_by_key(|position| position.partition);
        assert_eq!(positions, ends(records), "every partition is settled to its end");
        let stored = self.store.reads.positions("g").await.unwrap();
        for end in ends(records) {
            let there = |p: &&Position| p.partition == end.partition && p.next_offset >= end.next_offset;
            assert!(stored.iter().any(|position| there(&position)), "the store says so too: {stored:?}");
        }
    }

    /// Creates a worker to be stepped by hand, as after a restart.
    pub fn hands(&self, place: HandlerPlace) -> Hands {
        self.hands_that_read(place, Versions::current())
    }

    pub fn hands_that_read(&self, place: HandlerPlace, versions: Versions) -> Hands {
        self.hands_on(self.store.clone(), WorkerShared::new(place, versions), 8)
    }

    /// Creates a worker on the given store handle, with this limit of attempts.
    pub fn hands_on(&self, store: Store, setup: WorkerShared, retry_attempts: i32) -> Hands {
        let config = Arc::new(Config { retry_attempts, ..(*self.ctx.config).clone() });
        let ctx = Ctx { config, metrics: Metrics::default(), ids: Arc::new(LongestWaits), store, ..self.ctx.clone() };
        let metrics = WorkerMetrics::register(&ctx.metrics);
        Hands { processor: Processor::new(&ctx, metrics.clone(), setup.clone()), lot: LotTask::new(&ctx, metrics, setup), ctx }
    }

    /// Opens a second handle on the database: another process with PostgreSQL, the same one with SQLite.
    pub async fn second(&self) -> Store {
        match &self.home {
            Home::Sqlite { .. } => self.store.clone(),
            Home::Postgres { url } => open(url, Arc::new(ManualClock::at(now()))).await,
        }
    }

    /// Returns the address at which another process finds the store.
    pub fn address(&self) -> String {
        match &self.home {
            Home::Sqlite { path, .. } => path.to_str().unwrap().to_owned(),
            Home::Postgres { url } => url.clone(),
        }
    }

    /// Expires the leases of a worker that is gone.
    pub async fn end_leases(&self) {
        let past = if self.is_distributed() { "clock_timestamp() - interval '1 s'" } else { "0" };
        self.sql(&format!("UPDATE parked SET leased_until = {past}, next_attempt_at = {past} WHERE leased_until IS NOT NULL"))
            .await;
    }

    /// Runs the relay until the drain; once.
    pub async fn run_relay(&self) {
        let relay = self.relay.lock().unwrap().take().unwrap();
        relay.run(self.ctx.drain.clone()).await.unwrap();
    }

    /// Lets time pass for the lot, by the database's clock.
    pub async fn pass(&self, time: Duration) {
        match &self.home {
            Home::Sqlite { clock, .. } => clock.advance(TimeDelta::from_std(time).unwrap()),
            Home::Postgres { .. } => {
                let earlier = |column| format!("{column} = {column} - interval '{} ms'", time.as_millis());
                let columns = ["next_attempt_at", "leased_until", "parked_at"].map(earlier).join(", ");
                self.sql(&format!("UPDATE parked SET {columns}")).await;
            }
        }
    }

    /// Reads the timeline of an order: kinds and details.
    pub async fn timeline(&self, id: OrderId) -> Vec<(String, Value)> {
        let detail = if self.is_distributed() { "detail::text" } else { "detail" };
        let sql = format!("SELECT kind, {detail} FROM timeline WHERE order_id = {} ORDER BY id", self.literal(id));
        let rows: Vec<(String, Option<String>)> = self.rows(&sql).await;
        rows.into_iter().map(|(kind, detail)| (kind, detail.map_or(Value::Null, |d| serde_json::from_str(&d).unwrap()))).collect()
    }

    /// Formats an id as an SQL literal.
    pub fn literal(&self, id: OrderId) -> String {
        match &self.home {
            Home::Sqlite { .. } => format!("x'{}'", id.0.simple()),
            Home::Postgres { .. } => format!("'{id}'"),
        }
    }

    pub async fn try_step(&self, records: &[Record]) -> Result<Vec<Position>, StoreError> {
        self.processor.step(records, &[]).await
    }

    /// Returns the context of this shop's workers.
    pub fn ctx(&self) -> &Ctx {
        &self.ctx
    }

    /// Returns whether this is the store of the distributed mode.
    pub fn is_distributed(&self) -> bool {
        matches!(self.home, Home::Postgres { .. })
    }

    pub async fn rows<T>(&self, sql: &str) -> Vec<T>
    where
        T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let sql = AssertSqlSafe(sql.to_owned());
        match &self.home {
            Home::Sqlite { path, .. } => {
                let mut connection = SqliteConnection::connect(path.to_str().unwrap()).await.unwrap();
                sqlx::query_as(sql).fetch_all(&mut connection).await.unwrap()
            }
            Home::Postgres { url } => {
                let mut connection = PgConnection::connect(url).await.unwrap();
                sqlx::query_as(sql).fetch_all(&mut connection).await.unwrap()
            }
        }
    }

    pub async fn sql(&self, sql: &str) {
        match &self.home {
            Home::Sqlite { path, .. } => {
                let mut connection = SqliteConnection::connect(path.to_str().unwrap()).await.unwrap();
                sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
            }
            Home::Postgres { url } => run_sql(url, sql).await,
        }
    }

    /// Runs several statements in one transaction.
    pub async fn sql_at_once(&self, sql: &str) {
        let sql = AssertSqlSafe(format!("BEGIN; {sql}; COMMIT"));
        match &self.home {
            Home::Sqlite { path, .. } => {
                let mut connection = SqliteConnection::connect(path.to_str().unwrap()).await.unwrap();
                sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
            }
            Home::Postgres { url } => {
                let mut connection = PgConnection::connect(url).await.unwrap();
                sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
            }
        }
    }

    /// Returns the id of the timeline row that says that an order was processed.
    pub async fn place_in_timeline(&self, id: OrderId) -> i64 {
        let sql = format!("SELECT id FROM timeline WHERE kind = 'processed' AND order_id = {}", self.literal(id));
        self.rows::<(i64,)>(&sql).await[0].0
    }

    pub async fn count(&self, of: &str) -> i64 {
        self.rows::<(i64,)>(&format!("SELECT count(*) FROM {of}")).await[0].0
    }

    pub async fn parked(&self) -> Vec<Parked> {
        self.rows("SELECT * FROM parked ORDER BY id").await
    }

    pub async fn order(&self, id: OrderId) -> Option<Order> {
        let id = self.literal(id);
        self.rows(&format!("SELECT * FROM orders WHERE order_id = {id}")).await.pop()
    }

    /// Reads the whole outbox, shard by shard in number order.
    async fn outbox(&self) -> Vec<OutboxRow> {
        let shards = Role::ALL.into_iter().flat_map(Role::shards);
        let spans: Vec<Span> = shards.map(|shard| Span { shard, low: 1, high: i64::MAX }).collect();
        self.store.outbox.read(&spans, 10_000).await.unwrap()
    }

    /// Reads a topic's unpublished events, transaction by transaction; those of a key in their order.
    pub async fn published(&self, topic: &str) -> Vec<OutboxRow> {
        let written = if self.is_distributed() { "created_at" } else { "rowid" };
        let places: Vec<(i16, i64)> = self
            .rows(&format!(
                "SELECT e.shard, e.number FROM outbox_event e JOIN outbox_shard s USING (shard) WHERE e.number > s.acknowledged \
             ORDER BY e.{written}, e.shard, e.number"
            ))
            .await;
        let places: HashMap<_, _> = places.into_iter().zip(0..).collect();
        let mut latest: HashMap<i16, i32> = HashMap::new();
        let mut rows = Vec::new();
        for row in self.outbox().await {
            // A shard keeps its last row after it is published.
            let Some(place) = places.get(&(row.event.shard, row.number)) else { continue };
            let place = *latest.entry(row.event.shard).and_modify(|last| *last = *place.max(last)).or_insert(*place);
            rows.push((place, row));
        }
        rows.retain(|(_, row)| row.event.topic == topic);
        rows.sort_by_key(|(place, _)| *place);
        rows.into_iter().map(|(_, row)| row).collect()
    }

    pub async fn snapshot(&self) -> Snapshot {
        let mut counts = Vec::new();
        for table in ["orders", "outbox_event", "inbox", "inbox WHERE order_id IS NOT NULL", "parked", "timeline"] {
            counts.push(self.count(table).await);
        }
        let outbox = self.outbox().await;
        Snapshot {
            counts,
            orders: self.rows("SELECT * FROM orders ORDER BY order_id").await,
            parked: self.parked().await,
            outbox,
        }
    }

    pub fn metric(&self, sample: &str) -> u64 {
        metric(&self.ctx.metrics, sample)
    }

    pub fn events(&self, outcome: &str) -> u64 {
        self.metric(&format!("worker_events_total{{outcome=\"{outcome}\"}}"))
    }
}

fn ends(records: &[Record]) -> Vec<Position> {
    let mut ends: Vec<Position> = Vec::new();
    for record in records {
        let next_offset = record.offset + 1;
        match ends.iter_mut().find(|end| end.partition == record.partition) {
            Some(end) => end.next_offset = next_offset.max(end.next_offset),
            None => ends.push(Position { topic: record.topic.to_string(), partition: record.partition, next_offset }),
        }
    }
    ends.sort_by_key(|end| end.partition);
    ends
}
