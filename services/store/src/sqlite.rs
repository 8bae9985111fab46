//! The embedded store: one SQLite file, one writer, readers beside it.
//!
//! Every write is a unit of work on the one writing connection; units that queue while a commit runs share the next commit
//! (`writer`). Reads run on connections of their own and see every commit.

mod bulk;
mod cancel;
mod connect;
#[cfg(test)]
mod crowd;
mod database;
mod health;
mod housekeeping;
mod inbox;
mod lot;
mod orders;
mod outbox;
mod wal;
mod writer;

use std::path::Path;
use std::sync::Arc;

use minishop_core::clock::Clock;
use minishop_core::hex::encode as hex;
use sqlx::SqlitePool;

use super::error::OpenError;
use super::{Endpoints, History, Operations, Reads, Store, StoreError, Timeline};
use writer::{Broken, Writer};

/// Opens the store in a file, which it creates if absent, and starts its writer.
///
/// The caller holds the lock on the data directory. Must be called within a tokio runtime. With `migrate` an older schema is
/// migrated; without, it is [`OpenError::SchemaBehind`].
pub async fn open(path: &Path, clock: Arc<dyn Clock>, migrate: bool) -> Result<Store, OpenError> {
    let connection = connect::prepare(path, migrate).await?;
    let db = Db { readers: connect::readers(path).await?, writer: Writer::start(path, connection), clock };
    let shared = Arc::new(db.clone());
    Ok(Store {
        orders: Arc::new(db.clone()),
        reads: Reads(shared.clone()),
        timeline: Timeline(shared.clone()),
        outbox: Arc::new(db.clone()),
        inbox: Arc::new(db.clone()),
        endpoints: Endpoints(shared.clone()),
        operations: Operations(shared.clone()),
        history: History(shared),
        lot: Arc::new(db.clone()),
        housekeeping: Arc::new(db),
    })
}

/// Migrates a file's schema and returns its version.
pub async fn migrate(path: &Path) -> Result<i64, OpenError> {
    connect::prepare(path, true).await?;
    Ok(connect::binary_version())
}

/// Writes the write-ahead log back into the file, so that a copy of the file alone is complete. For a clean exit, when nothing is
/// written any more; what cannot be done then is done at the next start.
pub async fn checkpoint(path: &Path) {
    use sqlx::Connection;
    let done = async {
        let mut connection = connect::writer(path).await?;
        let rows = sqlx::query_as("PRAGMA wal_checkpoint(TRUNCATE)").fetch_all(&mut connection).await?;
        let (busy, ..): (i64, i64, i64) = first(rows)?;
        connection.close().await?;
        Ok::<_, sqlx::Error>(busy == 0)
    };
    match done.await {
        Ok(true) => {}
        other => tracing::warn!(?other, "cannot write back the write-ahead log; the next start does it"),
    }
}

/// Returns the version of the SQLite library in this binary.
pub async fn library_version() -> Result<String, sqlx::Error> {
    use sqlx::Connection;
    let mut memory = sqlx::SqliteConnection::connect("sqlite::memory:").await?;
    first(sqlx::query_scalar("SELECT sqlite_version()").fetch_all(&mut memory).await?)
}

/// State shared by all families.
#[derive(Debug, Clone)]
struct Db {
    readers: SqlitePool,
    writer: Writer,
    clock: Arc<dyn Clock>,
}

impl Db {
    fn now(&self) -> i64 {
        self.clock.now().timestamp_millis()
    }
}

/// Returns the first row of a statement that was run to its end.
///
/// `fetch_one` and `fetch_optional` stop at the first row. SQLite then commits while the statement is reset, and sqlx drops that
/// outcome: on a full disk a failed commit would look like a success. The house rules ban them here.
fn first<T>(rows: Vec<T>) -> sqlx::Result<T> {
    rows.into_iter().next().ok_or(sqlx::Error::RowNotFound)
}

/// Returns a mapper for the errors of an operation.
fn failed(operation: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |error| Broken::from(error).during(operation)
}

/// Writes byte strings as a JSON array of hexadecimal text, for `unhex` over `json_each`.
fn hex_list<'a>(items: impl IntoIterator<Item = &'a [u8]>) -> String {
    let hex: Vec<String> = items.into_iter().map(hex).collect();
    serde_json::Value::from(hex).to_string()
}
