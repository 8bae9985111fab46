//! The log's SQLite file: how it is opened, and the statements that read it. The writer's statements are in `log`.
//!
//! A batch has row id `partition << 43 | last offset`. One b-tree serves inserts, reads by offset and removal: the first
//! row at or after an offset is the batch that contains it.

pub(crate) mod file;
pub(crate) mod read;

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection, SqlitePool};

use crate::error::{Error, Fault, fault};

/// Bits of a row id that hold the offset: 8.8 · 10¹² records a partition. The remaining 20 bits allow a million partitions
/// over the file's life, which a check of table `part` enforces.
const OFFSET_BITS: u32 = 43;
/// Largest offset that fits a row id.
pub(crate) const MAX_OFFSET: i64 = (1 << OFFSET_BITS) - 1;

/// Returns the row id of the batch of `partition` whose last offset is `offset`.
pub(crate) fn row_id(partition: i64, offset: i64) -> i64 {
    partition << OFFSET_BITS | offset.clamp(0, MAX_OFFSET)
}

/// Returns the last offset of the batch with this row id.
pub(crate) fn last_offset(row_id: i64) -> i64 {
    row_id & MAX_OFFSET
}

/// Pages between two checkpoints; with pages of 8 KiB the write-ahead log stays near 8 MiB.
const CHECKPOINT_PAGES: &str = "1000";
/// Size in bytes to which a checkpoint truncates the write-ahead log, and above which the writer forces a checkpoint.
const JOURNAL_LIMIT: &str = "67108864";
pub(crate) const WAL_LIMIT: u64 = 64 << 20;
const READERS: u32 = 2;

/// Opens the only connection that writes.
pub(crate) async fn writer(file: &Path, max_bytes: Option<u64>) -> Result<SqliteConnection, Error> {
    let mut connection = options(file).connect().await.map_err(|e| refused(file, "open the event log", e))?;
    if let Some(bytes) = max_bytes {
        limit_size(&mut connection, bytes).await.map_err(|e| refused(file, "limit the event log's size", e))?;
    }
    verify(&mut connection).await.map_err(|e| e.at(file))?;
    Ok(connection)
}

/// Opens the pool of read connections; it connects at the first read.
pub(crate) fn readers(file: &Path) -> SqlitePool {
    SqlitePoolOptions::new()
        .max_connections(READERS)
        .idle_timeout(Duration::from_mins(1))
        .acquire_timeout(Duration::from_secs(30))
        .after_connect(|connection, _| {
            Box::pin(async move {
                verify(connection).await.map_err(|e| match e {
                    Mismatch::Sql(e) => e,
                    Mismatch::Setting(e) => sqlx::Error::Configuration(Box::new(e)),
                })
            })
        })
        .connect_lazy_with(options(file).pragma("query_only", "ON"))
}

fn options(file: &Path) -> SqliteConnectOptions {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5))
        .pragma("mmap_size", "0")
        .pragma("trusted_schema", "OFF")
        .pragma("cell_size_check", "ON")
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
        .pragma("journal_size_limit", JOURNAL_LIMIT)
        .disable_statement_logging();
    if cfg!(target_os = "macos") { options.pragma("fullfsync", "ON") } else { options }
}

async fn limit_size(connection: &mut SqliteConnection, bytes: u64) -> sqlx::Result<()> {
    let page: i64 = first(sqlx::query_scalar("PRAGMA page_size").fetch_all(&mut *connection).await?)?;
    let pages = bytes / page.unsigned_abs().max(1);
    sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"))).execute(connection).await?;
    Ok(())
}

/// Required settings. They belong to the connection; the file does not store them.
const EXPECTED: [(&str, &str, &str); 9] = [
    ("journal_mode", "PRAGMA journal_mode", "wal"),
    ("synchronous", "PRAGMA synchronous", "2"),
    ("foreign_keys", "PRAGMA foreign_keys", "1"),
    ("busy_timeout", "PRAGMA busy_timeout", "5000"),
    ("mmap_size", "PRAGMA mmap_size", "0"),
    ("trusted_schema", "PRAGMA trusted_schema", "0"),
    ("cell_size_check", "PRAGMA cell_size_check", "1"),
    ("wal_autocheckpoint", "PRAGMA wal_autocheckpoint", CHECKPOINT_PAGES),
    ("journal_size_limit", "PRAGMA journal_size_limit", JOURNAL_LIMIT),
];

/// Older versions could corrupt a file when its write-ahead log was reset.
const SQLITE_VERSION: (u32, u32, u32) = (3, 51, 3);

enum Mismatch {
    Sql(sqlx::Error),
    Setting(Error),
}

impl Mismatch {
    fn at(self, file: &Path) -> Error {
        match self {
            Self::Sql(e) => refused(file, "read the event log's settings", e),
            Self::Setting(e) => e,
        }
    }
}

/// Reads the settings back: SQLite ignores a setting that it does not accept.
async fn verify(connection: &mut SqliteConnection) -> Result<(), Mismatch> {
    for (setting, query, expected) in EXPECTED {
        let rows = sqlx::query(query).fetch_all(&mut *connection).await.map_err(Mismatch::Sql)?;
        // If compiled without memory mapping, SQLite returns no row for `mmap_size`, which means 0.
        let found = rows.first().map_or_else(|| "0".to_owned(), text);
        if found != expected {
            return Err(Mismatch::Setting(Error::Unsafe { setting, found, expected: expected.to_owned() }));
        }
    }
    let version = sqlx::query_scalar("SELECT sqlite_version()").fetch_all(connection).await.and_then(first);
    let version: String = version.map_err(Mismatch::Sql)?;
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    let found = (parts.next().unwrap_or(0), parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if found < SQLITE_VERSION {
        let (a, b, c) = SQLITE_VERSION;
        return Err(Mismatch::Setting(Error::Unsafe {
            setting: "version",
            found: version,
            expected: format!("{a}.{b}.{c} or newer"),
        }));
    }
    Ok(())
}

fn text(row: &sqlx::sqlite::SqliteRow) -> String {
    row.try_get::<String, _>(0).or_else(|_| row.try_get::<i64, _>(0).map(|n| n.to_string())).unwrap_or_default()
}

/// Returns the first row of a statement that ran to its end.
///
/// `fetch_one` and `fetch_optional` stop at the first row. SQLite then commits while the statement is reset, and sqlx drops
/// that outcome: on a full disk a failed commit would look like a success. The house rules forbid them here.
pub(crate) fn first<T>(rows: Vec<T>) -> sqlx::Result<T> {
    rows.into_iter().next().ok_or(sqlx::Error::RowNotFound)
}

/// Converts an error of SQLite into one of the log; damage is reported as such.
pub(crate) fn refused(file: &Path, operation: &'static str, source: sqlx::Error) -> Error {
    match fault(&source) {
        Fault::Corrupt => Error::Corrupt { file: file.to_owned(), reason: source.to_string() },
        Fault::Fsync => Error::Fsync(source),
        Fault::Retry => Error::Store { operation, source },
    }
}

/// Returns the size of the write-ahead log beside the file.
pub(crate) fn wal_bytes(file: &Path) -> u64 {
    std::fs::metadata(file::with_suffix(file, "-wal")).map_or(0, |found| found.len())
}

/// Closes a connection that is not used any more; errors are only logged.
pub(crate) async fn close(connection: SqliteConnection) {
    if let Err(e) = connection.close().await {
        tracing::debug!(error = %e, "closing a connection to the event log failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_with_other_settings_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("log.db");
        file::prepare(&file).await.unwrap();
        let right = options(&file);
        let rows = [
            ("", right.clone()),
            ("synchronous", right.clone().synchronous(SqliteSynchronous::Normal)),
            ("foreign_keys", right.clone().foreign_keys(false)),
            ("busy_timeout", right.clone().busy_timeout(Duration::from_secs(1))),
            ("cell_size_check", right.clone().pragma("cell_size_check", "OFF")),
            ("trusted_schema", right.clone().pragma("trusted_schema", "ON")),
            ("wal_autocheckpoint", right.clone().pragma("wal_autocheckpoint", "0")),
            ("journal_mode", right.journal_mode(SqliteJournalMode::Delete)),
        ];
        for (wrong, options) in rows {
            let mut connection = options.connect().await.unwrap();
            let found = match verify(&mut connection).await {
                Ok(()) => "",
                Err(Mismatch::Setting(Error::Unsafe { setting, .. })) => setting,
                Err(mismatch) => panic!("{wrong}: {}", mismatch.at(&file)),
            };
            assert_eq!(found, wrong);
            connection.close().await.unwrap();
        }
    }

    #[test]
    fn row_ids_keep_partition_and_offset() {
        for (partition, offset) in [(0, 0), (1, 0), (7, 12_345), ((1 << 20) - 1, MAX_OFFSET)] {
            let id = row_id(partition, offset);
            assert_eq!((id >> OFFSET_BITS, last_offset(id)), (partition, offset));
        }
        assert!(row_id(1, MAX_OFFSET) < row_id(2, 0), "partitions do not overlap");
    }
}
