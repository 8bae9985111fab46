//! A processor over a fresh store, and what is needed to look behind it.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use minishop_contracts::key::EventKey;
use minishop_core::backoff::Backoff;
use minishop_core::clock::{ManualClock, Timestamp, from_millis};
use minishop_core::ids::OrderId;
use minishop_platform::bus::Record;
use minishop_platform::clock::SystemIds;
use minishop_platform::config::{Config, Handling};
use minishop_platform::ctx::{Ctx, Metrics, Status};
use minishop_platform::hints::Hints;
use minishop_platform::relay::{RelayTask, Settings};
use minishop_platform::store::postgres::{self, PostgresSettings};
use minishop_platform::store::{OutboxRow, Position, Role, Store, StoreError, sqlite as sqlite_store};
use minishop_platform::telemetry::LogFormat;
use minishop_worker::{Processor, WorkerMetrics};
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Connection, FromRow, PgConnection, SqliteConnection};
use tokio_util::sync::CancellationToken;

pub struct Shop {
    pub processor: Processor,
    pub store: Store,
    ctx: Ctx,
    _relay: RelayTask,
    place: Place,
}

enum Place {
    Sqlite { path: PathBuf, _dir: tempfile::TempDir },
    Postgres { url: String },
}

pub fn now() -> Timestamp {
    from_millis(1_760_000_000_000)
}

pub async fn sqlite() -> Shop {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("minishop.db");
    let store = sqlite_store::open(&path, Arc::new(ManualClock::at(now())), true).await.unwrap();
    shop(store, Place::Sqlite { path, _dir: dir })
}

/// Runs a test on a fresh database, and drops it even when the test fails.
pub async fn on_postgres(test: impl AsyncFnOnce(Shop)) {
    let Some(server) = server("MINISHOP_TEST_POSTGRES") else { return };
    let name = format!("worker_{}", uuid::Uuid::from_u128(rand::random()).simple());
    let url = format!("{}/{name}", server.rsplit_once('/').unwrap().0);
    run_sql(&server, &format!("CREATE DATABASE {name}")).await;
    let settings = PostgresSettings { app_name: "minishop-test".into(), migrate: true };
    let store = postgres::connect(&url, &settings).await.unwrap();
    let outcome = AssertUnwindSafe(test(shop(store, Place::Postgres { url }))).catch_unwind().await;
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

/// Makes what a worker is given, and the relay that it hands its rows to.
pub fn ctx(store: &Store, brokers: &str, owner: &str, prefix: &str) -> (Ctx, RelayTask) {
    let (status, metrics) = (Status::default(), Metrics::default());
    let settings =
        Settings { owner: owner.to_owned(), roles: vec![Role::Worker], brokers: brokers.to_owned(), hints: Hints::default() };
    let (relay, task) = RelayTask::new(store.outbox.clone(), settings, status.clone(), &metrics).unwrap();
    let ctx = Ctx {
        config: Arc::new(config(prefix)),
        clock: Arc::new(ManualClock::at(now())),
        ids: Arc::new(SystemIds),
        store: store.clone(),
        brokers: brokers.to_owned(),
        relay,
        metrics,
        drain: CancellationToken::new(),
        status,
    };
    (ctx, task)
}

/// Reads a sample of the metrics, such as `worker_events_total{outcome="copy"}`.
pub fn sample(metrics: &Metrics, sample: &str) -> Option<u64> {
    let mut text = String::new();
    metrics.with(|registry| prometheus_client::encoding::text::encode(&mut text, registry)).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(&format!("minishop_{sample} ")))?;
    Some(value.parse().unwrap())
}

/// Reads a sample of the metrics; 0 when it is not there.
pub fn metric(metrics: &Metrics, name: &str) -> u64 {
    sample(metrics, name).unwrap_or_default()
}

fn shop(store: Store, place: Place) -> Shop {
    // Nothing answers there: events stay in the outbox, where the tests look at them.
    let (ctx, task) = ctx(&store, "127.0.0.1:1", "test", "");
    let metrics = WorkerMetrics::register(&ctx.metrics);
    Shop { processor: Processor::new(&ctx, metrics), store, ctx, _relay: task, place }
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
        topic_partitions: 8,
        require_idempotency_key: false,
        reflection: true,
        migrate: true,
        drain_wait: Duration::ZERO,
        outbox_limit_rows: 1_000_000,
        outbox_limit_age: Duration::from_hours(1),
        inbox_retention: Duration::from_hours(14 * 24),
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

/// What an order looks like to everybody.
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
    /// Settles records; all of them must be settled afterwards.
    pub async fn step(&self, records: &[Record]) {
        let mut positions = self.processor.step(records).await.unwrap();
        positions.sort_by_key(|position| position.partition);
        assert_eq!(positions, ends(records), "every partition is settled to its end");
        let stored = self.store.inbox.positions("g").await.unwrap();
        for end in ends(records) {
            let there = |p: &&Position| p.partition == end.partition && p.next_offset >= end.next_offset;
            assert!(stored.iter().any(|position| there(&position)), "the store says so too: {stored:?}");
        }
    }

    pub async fn try_step(&self, records: &[Record]) -> Result<Vec<Position>, StoreError> {
        self.processor.step(records).await
    }

    /// Tells whether this is the store of the distributed mode.
    pub fn is_distributed(&self) -> bool {
        matches!(self.place, Place::Postgres { .. })
    }

    pub async fn rows<T>(&self, sql: &str) -> Vec<T>
    where
        T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let sql = AssertSqlSafe(sql.to_owned());
        match &self.place {
            Place::Sqlite { path, .. } => {
                let mut connection = SqliteConnection::connect(path.to_str().unwrap()).await.unwrap();
                sqlx::query_as(sql).fetch_all(&mut connection).await.unwrap()
            }
            Place::Postgres { url } => {
                let mut connection = PgConnection::connect(url).await.unwrap();
                sqlx::query_as(sql).fetch_all(&mut connection).await.unwrap()
            }
        }
    }

    pub async fn sql(&self, sql: &str) {
        match &self.place {
            Place::Sqlite { path, .. } => {
                let mut connection = SqliteConnection::connect(path.to_str().unwrap()).await.unwrap();
                sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
            }
            Place::Postgres { url } => run_sql(url, sql).await,
        }
    }

    pub async fn count(&self, of: &str) -> i64 {
        self.rows::<(i64,)>(&format!("SELECT count(*) FROM {of}")).await[0].0
    }

    pub async fn parked(&self) -> Vec<Parked> {
        self.rows("SELECT * FROM parked ORDER BY id").await
    }

    pub async fn order(&self, id: OrderId) -> Option<Order> {
        let id = match &self.place {
            Place::Sqlite { .. } => format!("x'{}'", id.0.simple()),
            Place::Postgres { .. } => format!("'{id}'"),
        };
        self.rows(&format!("SELECT * FROM orders WHERE order_id = {id}")).await.pop()
    }

    /// Reads the waiting events of a topic in the order in which they are published.
    pub async fn published(&self, topic: &str) -> Vec<OutboxRow> {
        let mut rows = self.store.outbox.pending(&(0..32).collect::<Vec<_>>(), &[], 10_000).await.unwrap();
        rows.retain(|row| row.event.topic == topic);
        rows.sort_by_key(|row| row.id);
        rows
    }

    pub async fn snapshot(&self) -> Snapshot {
        let mut counts = Vec::new();
        for table in ["orders", "outbox", "inbox", "inbox WHERE order_id IS NOT NULL", "parked", "timeline"] {
            counts.push(self.count(table).await);
        }
        let outbox = self.store.outbox.pending(&(0..32).collect::<Vec<_>>(), &[], 10_000).await.unwrap();
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
