//! Fresh stores, and rows for them.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chrono::TimeDelta;
use futures::FutureExt;
use minishop_core::clock::{Clock, ManualClock, Timestamp, from_millis};
use minishop_core::idempotency::{Fingerprint, IdempotencyKey};
use minishop_core::ids::{ClientId, CorrelationId, EventId, OrderId};
use minishop_core::order::Status;
use minishop_core::order_head::OrderHead;
use minishop_core::parking::State;
use minishop_store::error::OpenError;
use minishop_store::postgres::{self, PostgresSettings};
use minishop_store::shard_of;
use minishop_store::{
    Acknowledged, AdoptedOrder, InboxEntry, ListQuery, NewEvent, NewOrder, OrderRow, OutboxRow, ParkedEvent, Renewal, Role, Span,
    Store, Transition, sqlite,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};
use tokio::task::AbortHandle;

/// A fresh store, and access to its database.
pub struct Fixture {
    pub store: Store,
    place: Place,
}

/// A transaction that keeps its locks.
pub struct Held(PgConnection);

impl Held {
    pub async fn let_go(mut self) {
        sqlx::query("ROLLBACK").execute(&mut self.0).await.expect("an answer");
    }
}

enum Place {
    Sqlite { clock: Arc<ManualClock>, path: PathBuf, _dir: tempfile::TempDir },
    Postgres { url: String },
}

pub async fn sqlite() -> Fixture {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("minishop.db");
    let clock = Arc::new(ManualClock::at(now()));
    let store = sqlite::open(&path, clock.clone(), true).await.expect("a fresh file opens");
    Fixture { store, place: Place::Sqlite { clock, path, _dir: dir } }
}

/// Runs a test on a fresh database, and drops it even if the test fails.
pub async fn on_postgres(test: impl AsyncFnOnce(Fixture)) {
    let with_store = async |url: String| {
        let store = postgres::connect(&url, &settings(true)).await.expect("a fresh database opens");
        test(Fixture { store, place: Place::Postgres { url } }).await;
    };
    on_bare_postgres(with_store).await;
}

/// Runs a test with the URL of a database without tables.
pub async fn on_bare_postgres(test: impl AsyncFnOnce(String)) {
    let Some(server) = server() else { return };
    let name = format!("store_{}", uuid::Uuid::from_u128(rand::random()).simple());
    let url = format!("{}/{name}", server.rsplit_once('/').expect("a URL with a database").0);
    run_sql(&server, &format!("CREATE DATABASE {name}")).await;
    let outcome = AssertUnwindSafe(test(url)).catch_unwind().await;
    run_sql(&server, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

#[expect(clippy::disallowed_methods, reason = "names the server for tests")]
fn server() -> Option<String> {
    let server = std::env::var("MINISHOP_TEST_POSTGRES").ok();
    let may_be_missing = std::env::var("MINISHOP_TEST_ALLOW_MISSING").is_ok_and(|value| value == "1");
    assert!(
        server.is_some() || may_be_missing,
        "MINISHOP_TEST_POSTGRES is not set: point it to a PostgreSQL server, or set MINISHOP_TEST_ALLOW_MISSING=1 to go without"
    );
    server
}

pub fn settings(migrate: bool) -> PostgresSettings {
    PostgresSettings { app_name: "minishop-test".into(), migrate }
}

async fn run_sql(url: &str, sql: &str) -> u64 {
    let mut connection = PgConnection::connect(url).await.expect("the test server answers");
    let done = sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.expect("the statement runs");
    done.rows_affected()
}

impl Fixture {
    /// Returns the URL of the PostgreSQL database.
    pub fn url(&self) -> &str {
        match &self.place {
            Place::Sqlite { .. } => panic!("a file has no address"),
            Place::Postgres { url } => url,
        }
    }

    /// Opens the same database again, as another process would.
    pub async fn open_again(&self, migrate: bool) -> Result<Store, OpenError> {
        match &self.place {
            Place::Sqlite { clock, path, .. } => sqlite::open(path, clock.clone(), migrate).await,
            Place::Postgres { url } => postgres::connect(url, &settings(migrate)).await,
        }
    }

    /// Returns a second store on the same database: another process with PostgreSQL, the same one with SQLite.
    pub async fn second(&self) -> Store {
        match &self.place {
            Place::Sqlite { .. } => self.store.clone(),
            Place::Postgres { .. } => self.open_again(false).await.expect("it opened before"),
        }
    }

    /// Runs a statement that both databases understand; returns how many rows it changed.
    pub async fn sql(&self, sql: &str) -> u64 {
        match &self.place {
            Place::Sqlite { path, .. } => {
                let mut connection = SqliteConnection::connect(path.to_str().expect("UTF-8")).await.expect("the file opens");
                let sql = AssertSqlSafe(sql.to_owned());
                sqlx::query(sql).execute(&mut connection).await.expect("the statement runs").rows_affected()
            }
            Place::Postgres { url } => run_sql(url, sql).await,
        }
    }

    /// Returns whether this is the store of the distributed mode.
    pub fn is_distributed(&self) -> bool {
        matches!(self.place, Place::Postgres { .. })
    }

    /// Reads a number from the PostgreSQL database.
    pub async fn long(&self, sql: &'static str) -> i64 {
        let mut connection = PgConnection::connect(self.url()).await.expect("the server answers");
        sqlx::query_scalar(sql).fetch_one(&mut connection).await.expect("a number")
    }

    /// Ends all connections of stores to the PostgreSQL database, and waits until none counts as alive because of its latest use.
    pub async fn lose_connections(&self) {
        let ours = "pg_stat_activity WHERE datname = current_database() AND application_name = 'minishop-test'";
        self.sql(&format!("SELECT pg_terminate_backend(pid) FROM {ours}")).await;
        let mut tick = tokio::time::interval(Duration::from_millis(15));
        tick.tick().await;
        tick.tick().await;
        while self.count(ours).await > 0 {}
    }

    /// Reads the rows of a query from the PostgreSQL database, as text.
    pub async fn texts(&self, query: &str) -> Vec<String> {
        let mut connection = PgConnection::connect(self.url()).await.expect("the server answers");
        let sql = AssertSqlSafe(format!("SELECT q::text FROM ({query}) q"));
        sqlx::query_scalar(sql).fetch_all(&mut connection).await.expect("rows")
    }

    /// Waits until no store is connected to the PostgreSQL database; the fixture's own store must not have been used.
    pub async fn alone(&self) {
        let others = "pg_stat_activity WHERE datname = current_database() AND application_name = 'minishop-test'";
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        while self.count(others).await > 0 {
            tick.tick().await;
        }
    }

    /// Begins a transaction beside the store's, with one statement; `None` on SQLite, which has one writer.
    pub async fn hold(&self, sql: &str) -> Option<Held> {
        let Place::Postgres { url } = &self.place else { return None };
        let mut connection = PgConnection::connect(url).await.expect("the server answers");
        for sql in ["BEGIN", sql] {
            sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.expect("the statement runs");
        }
        Some(Held(connection))
    }

    /// Waits until `count` transactions wait for locks, or until the task has ended without a wait. On SQLite, with its one
    /// writer, a task queues where it cannot be observed, so this returns at once.
    pub async fn until_blocked(&self, count: i64, task: &AbortHandle) {
        let Place::Postgres { .. } = &self.place else { return };
        let waiting = "pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        while self.count(waiting).await < count && !task.is_finished() {
            tick.tick().await;
        }
    }

    /// Counts the rows of a table.
    pub async fn count(&self, table: &str) -> i64 {
        let sql = AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        match &self.place {
            Place::Sqlite { path, .. } => {
                let mut connection = SqliteConnection::connect(path.to_str().expect("UTF-8")).await.expect("the file opens");
                sqlx::query_scalar(sql).fetch_one(&mut connection).await.expect("the table is there")
            }
            Place::Postgres { url } => {
                let mut connection = PgConnection::connect(url).await.expect("the server answers");
                sqlx::query_scalar(sql).fetch_one(&mut connection).await.expect("the table is there")
            }
        }
    }

    /// Advances the database's clock, or moves the times of outbox rows, leases, operations, audit, outages and parked
    /// events back.
    pub async fn age(&self, by: Duration) {
        match &self.place {
            Place::Sqlite { clock, .. } => clock.advance(TimeDelta::from_std(by).expect("a short time")),
            Place::Postgres { .. } => {
                let columns = [
                    ("outbox_event", "created_at"),
                    ("outbox_shard", "expires_at"),
                    ("relay_owner", "expires_at"),
                    ("operation", "leased_until"),
                    ("operation", "ended_at"),
                    ("audit", "at"),
                    ("endpoint_outage", "told_at"),
                    ("parked", "parked_at"),
                    ("parked", "next_attempt_at"),
                    ("parked", "leased_until"),
                ];
                for (table, column) in columns {
                    self.sql(&format!("UPDATE {table} SET {column} = {column} - interval '{} ms'", by.as_millis())).await;
                }
            }
        }
    }

    /// Returns the time of the database's clock.
    pub fn clock(&self) -> Timestamp {
        match &self.place {
            Place::Sqlite { clock, .. } => clock.now(),
            #[expect(clippy::disallowed_methods, reason = "the database's clock is the system's")]
            Place::Postgres { .. } => chrono::Utc::now(),
        }
    }

    /// Accepts orders, all of which must be new.
    pub async fn accept(&self, orders: &[NewOrder]) {
        let made = self.store.orders.intake().await.expect("a connection").accept(orders).await.expect("a commit");
        assert_eq!(made.len(), orders.len(), "every order is new");
    }

    pub async fn get(&self, order: &NewOrder) -> Option<OrderRow> {
        self.store.reads.order(&order.head.client_id, order.head.order_id).await.expect("an answer")
    }

    /// Reads the rows that wait to be published, by shard and number.
    pub async fn pending(&self) -> Vec<OutboxRow> {
        let stored = self.acknowledged().await;
        let mut rows = self.rows().await;
        rows.retain(|row| row.number > stored[&row.event.shard]);
        rows
    }

    /// Reads the whole outbox, published or not.
    pub async fn rows(&self) -> Vec<OutboxRow> {
        read_all(&self.store).await
    }

    /// Returns the stored number up to which each shard is published.
    pub async fn acknowledged(&self) -> HashMap<i16, i64> {
        const SQL: &str = "SELECT shard, acknowledged FROM outbox_shard";
        let rows: Vec<(i16, i64)> = match &self.place {
            Place::Sqlite { path, .. } => {
                let mut connection = SqliteConnection::connect(path.to_str().expect("UTF-8")).await.expect("the file opens");
                sqlx::query_as(SQL).fetch_all(&mut connection).await.expect("the table is there")
            }
            Place::Postgres { url } => {
                let mut connection = PgConnection::connect(url).await.expect("the server answers");
                sqlx::query_as(SQL).fetch_all(&mut connection).await.expect("the table is there")
            }
        };
        rows.into_iter().collect()
    }

    /// Returns what a leader acknowledges after it has published a shard up to a number.
    pub async fn published(&self, owner: &str, shard: i16, number: i64) -> Acknowledged {
        let leadership = self.store.outbox.lead(owner, &Role::ALL, &Renewal::default()).await.expect("an answer");
        let led = leadership.shards.iter().find(|led| led.shard == shard).expect("the only process leads every shard");
        let new = |row: &OutboxRow| row.event.shard == shard && row.number > led.acknowledged && row.number <= number;
        let events = self.rows().await.into_iter().filter(new).map(|row| row.event.event_id).collect();
        Acknowledged { shard, epoch: led.epoch, low: led.acknowledged, events }
    }

    /// Acknowledges a shard up to a number.
    pub async fn acknowledge(&self, owner: &str, shard: i16, number: i64) -> bool {
        let published = self.published(owner, shard, number).await;
        self.store.outbox.acknowledge(owner, &[published]).await.expect("an answer")
    }
}

/// Returns all shards of both roles.
pub fn all_shards() -> Vec<i16> {
    Role::ALL.into_iter().flat_map(Role::shards).collect()
}

/// Reads the whole outbox, published or not.
pub async fn read_all(store: &Store) -> Vec<OutboxRow> {
    let spans: Vec<Span> = all_shards().into_iter().map(|shard| Span { shard, low: 1, high: i64::MAX }).collect();
    store.outbox.read(&spans, 100_000).await.expect("an answer")
}

pub fn now() -> Timestamp {
    from_millis(1_760_000_000_123)
}

/// Returns a number that is unique in this process.
pub fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn random() -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes[2..].copy_from_slice(&unique().to_be_bytes());
    bytes
}

pub fn order_id() -> OrderId {
    OrderId::new(now(), random())
}

pub fn event_id() -> EventId {
    EventId::new(now(), random())
}

pub fn client(name: &str) -> ClientId {
    ClientId(name.to_owned())
}

pub fn key(text: &str) -> IdempotencyKey {
    IdempotencyKey::parse(text).expect("a good key")
}

pub fn event(role: Role, record_key: &str, order_id: OrderId, version: i32) -> NewEvent {
    NewEvent {
        shard: shard_of(role, record_key.as_bytes()),
        event_id: event_id(),
        topic: "orders.created".into(),
        record_key: Bytes::copy_from_slice(record_key.as_bytes()),
        order_id: Some(order_id),
        order_version: Some(version),
        payload: Some(Bytes::from_static(b"{\"eventId\":\"e\"}")),
        headers: Bytes::from_static(&[0, 0, 0, 0]),
    }
}

/// Returns a new order of customer `c1`.
pub fn order(client_name: &str, key_text: &str) -> NewOrder {
    order_of(client_name, key_text, "c1")
}

pub fn order_of(client_name: &str, key_text: &str, customer: &str) -> NewOrder {
    let id = order_id();
    NewOrder {
        head: OrderHead {
            order_id: id,
            client_id: client(client_name),
            customer_id: customer.into(),
            key: key(key_text),
            correlation_id: CorrelationId::parse("corr-1").expect("a good id"),
            currency: Some("EUR".into()),
            total_minor: 2100,
            created_at: now(),
        },
        fingerprint: Fingerprint([7; 32]),
        items: r#"[{"productId":"p1","qty":2,"priceMinor":1050}]"#.into(),
        traceparent: None,
        event: event(Role::Api, customer, id, 1),
    }
}

/// Returns orders of one client under the keys `k000`, `k001` and so on, sorted like an intake batch.
pub fn orders(client_name: &str, range: std::ops::Range<usize>) -> Vec<NewOrder> {
    range.map(|n| order(client_name, &format!("k{n:03}"))).collect()
}

pub fn list_of(client_name: &str) -> ListQuery {
    ListQuery { client_id: client(client_name), customer_id: None, status: None, before: None, down_to: None, limit: 100 }
}

pub fn entry(event_id: EventId) -> InboxEntry {
    InboxEntry { event_id, data_sha: [1; 32], order_id: None }
}

pub fn processed(order: &NewOrder) -> Transition {
    Transition {
        order_id: order.head.order_id,
        expected_version: 1,
        to: Status::Processed,
        at: now(),
        cause: order.event.event_id,
        event: event(Role::Worker, &order.head.customer_id, order.head.order_id, 2),
    }
}

pub fn adopted(order: &NewOrder) -> AdoptedOrder {
    AdoptedOrder {
        head: order.head.clone(),
        fingerprint: order.fingerprint,
        items: order.items.clone(),
        traceparent: None,
        created_event_id: order.event.event_id,
    }
}

pub fn parked(record_key: &str, state: State, blocks: bool) -> ParkedEvent {
    ParkedEvent {
        record_key: Bytes::copy_from_slice(record_key.as_bytes()),
        blocks,
        state,
        event_id: event_id(),
        order_id: Some(order_id()),
        client_id: Some(client("a")),
        event_type: Some("orders.created".into()),
        needs_type: None,
        topic: "orders.created".into(),
        partition: 3,
        offset: 42,
        raw_key: Some(Bytes::from_static(b"c1")),
        raw_value: None,
        raw_headers: Bytes::from_static(&[0, 0, 0, 0]),
        error_class: Some("refused"),
        error_code: Some("DATA_INVALID"),
        error_message: Some("items is empty".into()),
        error_fingerprint: Some([9; 32]),
        failed_at: Some(now()),
    }
}

pub fn clock_of(at: Timestamp) -> Arc<dyn Clock> {
    Arc::new(ManualClock::at(at))
}
