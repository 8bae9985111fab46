//! Opens the file: checks that it is ours and undamaged, that its schema is ours, and that its settings keep acknowledged data.

use std::path::Path;
use std::time::{Duration, Instant};

use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row, SqliteConnection, SqlitePool};

use super::super::error::{OpenError, compare_schema};
use super::super::outbox::{SHARDS, check_shards};
use super::first;

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// Marks a file as ours; also in the first migration.
const APPLICATION_ID: i64 = 0x4d53_484f;

/// Older versions can corrupt a file in WAL mode when two connections meet at the reset of the log.
const OLDEST: (u32, u32, u32) = (3, 51, 3);

/// The most bytes of a file that is checked as a whole at start; for a larger one that would take seconds.
const CHECKED_WHOLE: u64 = 512 << 20;

/// The limit of a statement on PostgreSQL. A read that exceeds it fails as if the store were unreachable.
const LONGEST_READ: Duration = Duration::from_secs(5);
/// Instructions of SQLite's virtual machine between two checks of the clock: a fraction of a millisecond.
const STEPS: i32 = 10_000;

/// Settings are per connection and not kept in the file, so each connection sets them and reads them back.
const SETTINGS: &[(&str, &str)] = &[
    ("journal_mode", "wal"),
    ("synchronous", "2"),
    ("foreign_keys", "1"),
    ("busy_timeout", "5000"),
    ("mmap_size", "0"),
    ("trusted_schema", "0"),
    ("cell_size_check", "1"),
    ("wal_autocheckpoint", "1000"),
    ("journal_size_limit", "67108864"),
    #[cfg(target_os = "macos")]
    ("fullfsync", "1"),
];

/// The schema version of this binary.
pub(super) fn binary_version() -> i64 {
    MIGRATIONS.iter().map(|m| m.version).max().unwrap_or(0)
}

/// Inspects the file without touching it, then opens it for writing and migrates it.
pub(super) async fn prepare(path: &Path, migrate: bool) -> Result<SqliteConnection, OpenError> {
    let is_new = std::fs::metadata(path).map_or(true, |file| file.len() == 0);
    let version = if is_new { 0 } else { inspect(path).await? };
    let behind = compare_schema(version, binary_version(), migrate)?;
    let mut connection = writer(path).await.map_err(|error| open_error(path, error))?;
    verify(&mut connection, false).await?;
    if behind {
        MIGRATIONS.run(&mut connection).await.map_err(|error| OpenError::Fail { source: error.into() })?;
    }
    let shards = sqlx::query_scalar(SHARDS).fetch_all(&mut connection).await;
    check_shards(&shards.map_err(|error| open_error(path, error))?)?;
    if is_new {
        sync_directory(path)?;
    }
    Ok(connection)
}

/// Opens the one connection that writes.
pub(super) async fn writer(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    options(path).connect().await
}

/// Opens the connections that read: they cannot write, and each is checked like the writer.
pub(super) async fn readers(path: &Path) -> Result<SqlitePool, OpenError> {
    SqlitePoolOptions::new()
        .max_connections(4)
        .acquire_timeout(Duration::from_millis(500))
        .after_connect(|connection, _| {
            Box::pin(async move {
                verify(connection, true).await.map_err(|error| sqlx::Error::Configuration(error.into()))?;
                limit(connection).await
            })
        })
        // `before_acquire` asks the connection's thread already, which is all that the pool's own test does.
        .test_before_acquire(false)
        .before_acquire(|connection, _| Box::pin(async move { limit(connection).await.map(|()| true) }))
        .connect_with(options(path).create_if_missing(false).pragma("query_only", "ON"))
        .await
        .map_err(|error| open_error(path, error))
}

/// Limits reads from now on to [`LONGEST_READ`]: a long one keeps the write-ahead log from being reset.
async fn limit(connection: &mut SqliteConnection) -> sqlx::Result<()> {
    let end = Instant::now() + LONGEST_READ;
    connection.lock_handle().await?.set_progress_handler(STEPS, move || Instant::now() < end);
    Ok(())
}

fn options(path: &Path) -> SqliteConnectOptions {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5))
        .pragma("mmap_size", "0")
        .pragma("trusted_schema", "OFF")
        .pragma("cell_size_check", "ON")
        .pragma("wal_autocheckpoint", "1000")
        .pragma("journal_size_limit", "67108864")
        .disable_statement_logging();
    if cfg!(target_os = "macos") { options.pragma("fullfsync", "ON") } else { options }
}

async fn verify(connection: &mut SqliteConnection, reader: bool) -> Result<(), OpenError> {
    let version: String = read(connection, "SELECT sqlite_version()").await?;
    if parse_version(&version) < OLDEST {
        return Err(OpenError::Unsafe { setting: "sqlite_version", found: version, needed: "3.51.3 or newer" });
    }
    let own = [("query_only", if reader { "1" } else { "0" })];
    for (setting, needed) in SETTINGS.iter().copied().chain(own) {
        let query = sqlx::query(AssertSqlSafe(format!("PRAGMA {setting}")));
        let rows = query.fetch_all(&mut *connection).await.map_err(|error| OpenError::Fail { source: error.into() })?;
        // Numbers are read as text. mmap_size gives no row when memory mapping is compiled out, which is as good as 0.
        let found = rows.first().map_or_else(|| Ok("0".to_owned()), |row| row.try_get_unchecked::<String, _>(0));
        let found = found.map_err(|error| OpenError::Fail { source: error.into() })?;
        if found != needed {
            return Err(OpenError::Unsafe { setting, found, needed });
        }
    }
    Ok(())
}

fn parse_version(text: &str) -> (u32, u32, u32) {
    let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next())
}

/// Inspects an existing file through a connection that cannot write; returns its schema version.
async fn inspect(path: &Path) -> Result<i64, OpenError> {
    let corrupt = |reason: &str| OpenError::Corrupt { path: path.to_owned(), reason: reason.to_owned() };
    let options = SqliteConnectOptions::new().filename(path).read_only(true).pragma("cell_size_check", "ON");
    let mut connection = options.disable_statement_logging().connect().await.map_err(|error| open_error(path, error))?;
    let found = look(&mut connection, path).await;
    let closed = connection.close().await;
    let found = found.map_err(|error| open_error(path, error))?;
    closed.map_err(|error| open_error(path, error))?;
    match found {
        Found { tables: 0, application_id: 0, .. } => Ok(0),
        Found { damage: Some(damage), .. } => Err(corrupt(&damage)),
        Found { application_id: APPLICATION_ID, version, .. } => Ok(version),
        Found { .. } => Err(corrupt("it was created by another program")),
    }
}

struct Found {
    application_id: i64,
    tables: i64,
    version: i64,
    damage: Option<String>,
}

async fn look(connection: &mut SqliteConnection, path: &Path) -> Result<Found, sqlx::Error> {
    let application_id = first(sqlx::query_scalar("PRAGMA application_id").fetch_all(&mut *connection).await?)?;
    let tables = first(sqlx::query_scalar("SELECT count(*) FROM sqlite_master").fetch_all(&mut *connection).await?)?;
    let mut found = Found { application_id, tables, version: 0, damage: None };
    if application_id == APPLICATION_ID {
        let sql = "SELECT coalesce(max(version), 0) FROM _sqlx_migrations WHERE success";
        found.version = first(sqlx::query_scalar(sql).fetch_all(&mut *connection).await?)?;
        if std::fs::metadata(path)?.len() <= CHECKED_WHOLE {
            let verdict: String = first(sqlx::query_scalar("PRAGMA quick_check(1)").fetch_all(&mut *connection).await?)?;
            found.damage = (verdict != "ok").then_some(verdict);
        }
    }
    Ok(found)
}

async fn read(connection: &mut SqliteConnection, sql: &'static str) -> Result<String, OpenError> {
    sqlx::query_scalar(sql).fetch_all(connection).await.and_then(first).map_err(|error| OpenError::Fail { source: error.into() })
}

/// Makes the new file's name durable: without it a power cut may leave an empty directory.
fn sync_directory(path: &Path) -> Result<(), OpenError> {
    let directory = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| OpenError::DataDir { path: path.to_owned(), source: error.into() })
}

fn open_error(path: &Path, error: sqlx::Error) -> OpenError {
    let path = path.to_owned();
    match super::writer::primary_code(&error) {
        Some(11 | 26) => OpenError::Corrupt { path, reason: error.to_string() },
        Some(5 | 6 | 13) => OpenError::Retry { source: error.into() },
        Some(3 | 8 | 10 | 14 | 23) => OpenError::DataDir { path, source: error.into() },
        _ => match error {
            sqlx::Error::Configuration(inner) => match inner.downcast::<OpenError>() {
                Ok(open) => *open,
                Err(other) => OpenError::Fail { source: anyhow::anyhow!(other) },
            },
            other => OpenError::Fail { source: other.into() },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_read_ends_after_its_time_and_the_next_one_has_as_much() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("minishop.db");
        prepare(&path, true).await.unwrap();
        let readers = readers(&path).await.unwrap();
        let began = Instant::now();
        let endless = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n) SELECT count(*) FROM n";
        let error = sqlx::query(endless).fetch_all(&readers).await.unwrap_err();
        assert_eq!(super::super::writer::primary_code(&error), Some(9), "{error}");
        assert!((LONGEST_READ..LONGEST_READ * 3).contains(&began.elapsed()), "ended after {:?}", began.elapsed());
        let long = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 100000) SELECT count(*) FROM n";
        assert_eq!(sqlx::query_scalar::<_, i64>(long).fetch_all(&readers).await.unwrap(), [100_000]);
    }
}
