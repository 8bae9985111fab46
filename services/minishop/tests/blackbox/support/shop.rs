//! An installation of a test's own on real servers: a database, topics under a prefix, and the roles as processes.

use std::process::Command;

use minishop_bus::Record;
use minishop_contracts::topics;
use minishop_testkit::blocking::block_on;
use minishop_testkit::database::Database;
use minishop_testkit::process::Process;
use minishop_testkit::servers::required;
use minishop_testkit::topics::records;
use sqlx::FromRow;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;

use crate::support::checker::Ledger;
use crate::support::endpoint::Endpoint;
use crate::support::place::{Place, minishop};

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
    /// Reads the addresses of the servers that `infra/test` has started. Without them a test fails.
    pub fn given() -> Self {
        let [postgres, kafka, redis] = ["POSTGRES", "KAFKA", "REDIS"].map(|name| required(&format!("MINISHOP_TEST_{name}")));
        Self { postgres, kafka, redis }
    }
}

/// A database and topics that no other test uses; the database is dropped with the test.
#[derive(Debug)]
pub struct Shop {
    servers: Addresses,
    database: Database,
}

impl Shop {
    /// Creates the database and, by the real commands, its schema and topics.
    pub fn on(servers: Addresses) -> Self {
        let database = block_on(Database::on(servers.postgres.clone()));
        let shop = Self { servers, database };
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
        command.env("DATABASE_URL", self.url()).env("KAFKA_BROKERS", self.brokers());
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

    /// Starts a worker that calls an endpoint.
    pub fn worker_that_calls(&self, endpoint: &Endpoint) -> Process {
        let mut command = self.command(&["worker"]);
        command.envs(endpoint.settings());
        Process::start(command)
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
        records(self.brokers(), &self.topic(topic))
    }

    /// Reads rows of the database.
    pub fn rows<T>(&self, sql: &str) -> Vec<T>
    where
        T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        block_on(self.database.rows(sql))
    }

    /// Runs statements on the database, in one transaction.
    pub fn execute(&self, sql: &str) {
        block_on(self.database.sql(sql));
    }

    /// Runs a statement on the server, outside this database; `{}` stands for the database's name.
    pub fn administer(&self, statement: &str) {
        block_on(self.database.administer(&statement.replace("{}", self.database.name())));
    }

    /// Returns host and port of the database's server.
    pub fn database_address(&self) -> &str {
        self.database.server()
    }

    /// Returns the database's URL.
    pub fn url(&self) -> &str {
        self.database.url()
    }

    fn prefix(&self) -> String {
        format!("{}.", self.database.name())
    }
}

impl Ledger for Shop {
    fn database(&self) -> &Database {
        &self.database
    }

    fn records(&self, topic: &str) -> Vec<Record> {
        Self::records(self, topic)
    }
}
