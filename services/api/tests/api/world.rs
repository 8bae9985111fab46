//! Fresh databases of either kind, and direct access to them.

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use futures::FutureExt as _;
use minishop_core::ids::Ids as _;
use minishop_platform::clock::{SystemClock, SystemIds};
use minishop_store::postgres::{self, PostgresSettings};
use minishop_store::{Store, sqlite};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};

/// Which database a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Postgres,
}

/// One database.
#[derive(Debug, Clone)]
pub enum Place {
    File(PathBuf),
    Url(String),
}

/// Makes databases, and removes them when the test is over.
pub struct World {
    pub kind: Kind,
    pub dir: tempfile::TempDir,
    server: String,
    databases: Mutex<Vec<String>>,
}

/// Runs a test on a kind of store; its databases are dropped even when it fails.
pub async fn on(kind: Kind, test: impl AsyncFnOnce(&World)) {
    let server = match kind {
        Kind::Sqlite => Some(String::new()),
        Kind::Postgres => server(),
    };
    let Some(server) = server else { return };
    let world = World { kind, dir: tempfile::tempdir().unwrap(), server, databases: Mutex::default() };
    let outcome = AssertUnwindSafe(test(&world)).catch_unwind().await;
    let made: Vec<String> = world.databases.lock().unwrap().drain(..).collect();
    for name in made {
        run_sql(&world.server, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
    }
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

async fn run_sql(url: &str, sql: &str) {
    let mut connection = PgConnection::connect(url).await.expect("the test server answers");
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.expect("the statement runs");
    connection.close().await.unwrap();
}

impl World {
    /// Makes an empty database.
    pub async fn place(&self) -> Place {
        let name = format!("api_{:032x}", SystemIds.random().into_iter().fold(0u128, |n, byte| n << 8 | u128::from(byte)));
        match self.kind {
            Kind::Sqlite => Place::File(self.dir.path().join(name)),
            Kind::Postgres => {
                run_sql(&self.server, &format!("CREATE DATABASE {name}")).await;
                self.databases.lock().unwrap().push(name.clone());
                Place::Url(format!("{}/{name}", self.server.rsplit_once('/').expect("a URL with a database").0))
            }
        }
    }

    /// Runs a statement on the server, outside the databases of the test.
    pub async fn server_sql(&self, sql: &str) {
        run_sql(&self.server, sql).await;
    }
}

impl Place {
    pub async fn open(&self) -> Store {
        match self {
            Self::File(path) => sqlite::open(path, Arc::new(SystemClock), true).await.unwrap(),
            Self::Url(url) => {
                postgres::connect(url, &PostgresSettings { app_name: "minishop-api".into(), migrate: true }).await.unwrap()
            }
        }
    }

    /// Returns the name of a PostgreSQL database.
    pub fn name(&self) -> &str {
        match self {
            Self::File(_) => panic!("a file is no database of a server"),
            Self::Url(url) => url.rsplit_once('/').unwrap().1,
        }
    }

    /// Runs statements in the dialect of this database.
    pub async fn sql(&self, sql: &str) {
        match self {
            Self::File(path) => {
                let mut connection = file(path).await;
                sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
            Self::Url(url) => run_sql(url, sql).await,
        }
    }

    /// Returns an id as an SQL literal.
    pub fn id(&self, id: &str) -> String {
        match self {
            Self::File(_) => format!("x'{}'", id.replace('-', "")),
            Self::Url(_) => format!("'{id}'::uuid"),
        }
    }

    /// Returns bytes as an SQL literal.
    pub fn bytes(&self, text: &str) -> String {
        match self {
            Self::File(_) => format!("CAST('{text}' AS BLOB)"),
            Self::Url(_) => format!("'{text}'::bytea"),
        }
    }

    /// Returns a time as an SQL literal.
    pub fn time(&self, millis: i64) -> String {
        match self {
            Self::File(_) => millis.to_string(),
            Self::Url(_) => format!("to_timestamp({millis} / 1000.0)"),
        }
    }

    /// Reads one number.
    pub async fn number(&self, sql: &str) -> i64 {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Self::File(path) => sqlx::query_scalar(sql).fetch_one(&mut file(path).await).await.unwrap(),
            Self::Url(url) => sqlx::query_scalar(sql).fetch_one(&mut PgConnection::connect(url).await.unwrap()).await.unwrap(),
        }
    }

    /// Blocks every commit of an order under `key` until the guard is released.
    pub async fn hold(&self, key: &str) -> Hold {
        match self {
            Self::File(path) => {
                let mut connection = file(path).await;
                sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut connection).await.unwrap();
                Hold::File(connection)
            }
            Self::Url(url) => {
                let mut connection = PgConnection::connect(url).await.unwrap();
                let sql = format!(
                    "BEGIN; INSERT INTO orders (order_id, client_id, idempotency_key, fingerprint, customer_id, status, version, \
                     total_minor, items, correlation_id, created_event_id, created_at) VALUES (gen_random_uuid(), 'anonymous', \
                     '{key}', decode(repeat('00', 32), 'hex'), 'c', 'created', 1, 0, '[]', 'c', gen_random_uuid(), now())"
                );
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
                Hold::Server(connection)
            }
        }
    }
}

async fn file(path: &Path) -> SqliteConnection {
    SqliteConnection::connect(path.to_str().unwrap()).await.unwrap()
}

/// An open transaction that blocks others.
pub enum Hold {
    File(SqliteConnection),
    Server(PgConnection),
}

impl Hold {
    /// Rolls it back.
    pub async fn release(self) {
        match self {
            Self::File(mut connection) => drop(sqlx::raw_sql("ROLLBACK").execute(&mut connection).await.unwrap()),
            Self::Server(mut connection) => drop(sqlx::raw_sql("ROLLBACK").execute(&mut connection).await.unwrap()),
        }
    }
}
