//! The kinds of connections, and the schema.

use std::sync::Arc;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};

use super::super::error::{OpenError, compare_schema};
use super::super::outbox::{SHARDS, check_shards};
use super::error::open_error;
use super::pooler;
use super::session::{Session, Setting};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// The schema version of this binary.
pub(super) fn binary_version() -> i64 {
    MIGRATIONS.iter().map(|m| m.version).max().unwrap_or(0)
}

/// A migration has no time limit.
const ADMIN: [Setting; 4] = [
    ("statement_timeout", "0"),
    ("lock_timeout", "30s"),
    ("transaction_timeout", "0"),
    ("idle_in_transaction_session_timeout", "10s"),
];

/// A kind of connection for each kind of work.
#[derive(Debug)]
pub(super) struct Sessions {
    pub(super) intake: Session,
    pub(super) reads: Session,
    pub(super) relay: Session,
    pub(super) worker: Session,
    pub(super) operations: Session,
    pub(super) lot: Session,
    admin: Session,
}

impl Sessions {
    pub(super) fn new(url: &str, app_name: &str) -> Result<Self, OpenError> {
        let base: PgConnectOptions = url.parse().map_err(|error: sqlx::Error| OpenError::Fail { source: error.into() })?;
        // Poolers refuse it, and only doubles sent as text depend on it: none are read here.
        let base = base.application_name(app_name).extra_float_digits(None);
        let usual = [("statement_timeout", "5s"), ("lock_timeout", "2s")];
        // A generic plan made while the tables were empty would scan them for ever, and nested loops over a batch joined with
        // itself are quadratic.
        let intake =
            [("statement_timeout", "5s"), ("lock_timeout", "50ms"), ("enable_seqscan", "off"), ("enable_nestloop", "off")];
        let worker = [("statement_timeout", "5s"), ("lock_timeout", "2s"), ("enable_seqscan", "off")];
        let opened = Arc::default();
        Ok(Self {
            intake: Session::new(&base, &intake, &opened),
            reads: Session::new(&base, &worker, &opened),
            relay: Session::new(&base, &worker, &opened).lookups(),
            worker: Session::new(&base, &worker, &opened),
            operations: Session::new(&base, &usual, &opened),
            lot: Session::new(&base, &worker, &opened),
            admin: Session::new(&base, &ADMIN, &opened),
        })
    }
}

/// Checks for a pooler, then checks the server and its schema; migrates an older schema if `migrate` is set.
pub(super) async fn prepare(sessions: &Sessions, migrate: bool) -> Result<(), OpenError> {
    pooler::refuse(sessions.admin.options()).await?;
    let mut connection = sessions.admin.connect().await?;
    let version = schema_version(&mut connection).await?;
    if compare_schema(version, binary_version(), migrate)? {
        MIGRATIONS.run(&mut connection).await.map_err(|error| match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => open_error(error),
            other => OpenError::Fail { source: other.into() },
        })?;
    }
    check_shards(&sqlx::query_scalar(SHARDS).fetch_all(&mut connection).await.map_err(open_error)?)?;
    connection.close().await.map_err(open_error)
}

async fn schema_version(connection: &mut PgConnection) -> Result<i64, OpenError> {
    let exists = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";
    let version = "SELECT coalesce(max(version), 0) FROM _sqlx_migrations WHERE success";
    let known: bool = sqlx::query_scalar(exists).fetch_one(&mut *connection).await.map_err(open_error)?;
    if known { sqlx::query_scalar(version).fetch_one(connection).await.map_err(open_error) } else { Ok(0) }
}
