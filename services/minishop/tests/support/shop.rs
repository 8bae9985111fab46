//! An installation of a test's own on real servers: a database, topics under a prefix, and the roles as processes.

use std::future::Future;
use std::process::Command;

use minishop_bus::Record;
use minishop_contracts::topics;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection, FromRow, PgConnection};

use crate::checker::{Ledger, Order};
use crate::place::{self, Place};
use crate::process::{Process, minishop};

/// Addresses of the servers.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// PostgreSQL, as a URL.
    pub postgres: String,
    /// Kafka's bootstrap address.
    pub kafka: String,
    /// Redis, as a URL.
    pub redis: String,
}

impl Addresses {
    /// Reads the addresses of the servers that `infra/test` has started. Without them a test fails: a gap would look like a pass.
    pub fn given() -> Self {
        #[expect(clippy::disallowed_methods, reason = "names the servers for tests")]
        let read = |name| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; run infra/test"));
        Self { postgres: read("MINISHOP_TEST_POSTGRES"), kafka: read("MINISHOP_TEST_KAFKA"), redis: read("MINISHOP_TEST_REDIS") }
    }
}

/// A database and topics that no other test uses; the database is dropped with the test.
#[derive(Debug)]
pub struct Shop {
    servers: Addresses,
    name: String,
}

/// Runs a future to its end.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

async fn execute(url: &str, sql: String) -> sqlx::Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await?;
    connection.close().await
}

impl Shop {
    /// Creates the database and, by the real commands, its schema and topics.
    pub fn on(servers: Addresses) -> Self {
        let name = format!("blackbox_{:016x}", rand_u64());
        block_on(execute(&servers.postgres, format!("CREATE DATABASE {name}"))).unwrap();
        let shop = Self { servers, name };
        for words in [&["migrate"][..], &["topics", "create"]] {
            let done = shop.command(words).output().unwrap();
            assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
        }
        shop
    }

    /// Creates an installation on the servers that `infra/test` has started.
    pub fn new() -> Self {
        Self::on(Addresses::given())
    }

    /// Returns a command of the real binary with this installation's settings.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = minishop(words);
        command.env("DATABASE_URL", self.database()).env("KAFKA_BROKERS", self.brokers());
        command.env("REDIS_URL", &self.servers.redis).env("MINISHOP_TOPIC_PREFIX", self.prefix());
        command
    }

    /// Starts an API.
    pub fn api(&self) -> Process {
        Process::start(self.command(&["api"]))
    }

    /// Starts a worker.
    pub fn worker(&self) -> Process {
        Process::start(self.command(&["worker"]))
    }

    /// Runs a scenario on this installation, through one of its APIs.
    pub fn place(&self, api: &Process, scenario: impl FnOnce(&Place<'_>)) {
        let command = |words: &[&str]| self.command(words);
        scenario(&Place { http: api.addr("http"), brokers: self.brokers(), prefix: self.prefix(), command: &command });
    }

    /// Returns Kafka's bootstrap address.
    pub fn brokers(&self) -> &str {
        &self.servers.kafka
    }

    /// Returns the consumer group of the workers.
    pub fn group(&self) -> String {
        format!("{}minishop-worker", self.prefix())
    }

    /// Returns a topic's full name.
    pub fn topic(&self, name: &str) -> String {
        topics::prefixed(&self.prefix(), name)
    }

    /// Reads all records of a topic, in order per partition.
    pub fn records(&self, topic: &str) -> Vec<Record> {
        place::records(self.brokers(), &self.topic(topic))
    }

    /// Queries the database over a connection of its own.
    pub fn rows<T: for<'r> FromRow<'r, PgRow> + Send + Unpin>(&self, sql: &'static str) -> Vec<T> {
        block_on(async {
            let mut connection = PgConnection::connect(&self.database()).await.unwrap();
            sqlx::query_as::<_, T>(sql).fetch_all(&mut connection).await.unwrap()
        })
    }

    /// Runs statements on the database, in one transaction.
    pub fn execute(&self, sql: &'static str) {
        block_on(async {
            let mut connection = PgConnection::connect(&self.database()).await.unwrap();
            sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        });
    }

    /// Counts the events that wait in the outbox.
    pub fn waiting(&self) -> i64 {
        self.number("SELECT count(*) FROM outbox_waiting")
    }

    /// Queries the database for one number.
    pub fn number(&self, sql: &'static str) -> i64 {
        self.rows::<(i64,)>(sql)[0].0
    }

    /// Runs a statement on the server, outside this database; `{}` stands for the database's name.
    pub fn administer(&self, statement: &str) {
        block_on(execute(&self.servers.postgres, statement.replace("{}", &self.name))).unwrap();
    }

    /// Returns host and port of the database's server.
    pub fn database_address(&self) -> &str {
        self.servers.postgres.rsplit_once('/').unwrap().0.rsplit_once(['@', '/']).unwrap().1
    }

    /// Returns the database's URL.
    pub fn database(&self) -> String {
        format!("{}/{}", self.servers.postgres.rsplit_once('/').unwrap().0, self.name)
    }

    fn prefix(&self) -> String {
        format!("{}.", self.name)
    }
}

impl Ledger for Shop {
    fn number(&self, sql: &'static str) -> i64 {
        Self::number(self, sql)
    }

    fn orders(&self, sql: &'static str) -> Vec<Order> {
        self.rows(sql)
    }

    fn records(&self, topic: &str) -> Vec<Record> {
        Self::records(self, topic)
    }

    fn waiting(&self) -> i64 {
        Self::waiting(self)
    }

    fn deadlocks(&self) -> i64 {
        Self::number(self, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        // A stopped server is removed with its databases.
        let _ = block_on(execute(&self.servers.postgres, format!("DROP DATABASE {} WITH (FORCE)", self.name)));
    }
}

fn rand_u64() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}
