//! Creates the file, and rejects files of other programs before SQLite opens them.

use std::fs::File;
use std::io;
use std::io::Read;
use std::path::{Path, PathBuf};

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};

use super::refused;
use crate::error::Error;

/// Marks the file as an event log in SQLite's header (`MsLg`).
const APPLICATION_ID: u32 = 0x4d73_4c67;
/// Version of the tables in `SCHEMA`.
const SCHEMA_VERSION: u32 = 1;

/// Topic names are ASCII by Kafka's rule. `at` is the time of storing in ms.
const SCHEMA: &str = "
PRAGMA page_size = 8192;
BEGIN;
CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES ('cluster', randomblob(16)), ('producer', 1), ('probe', 0);
CREATE TABLE topic (
  name TEXT PRIMARY KEY, id BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
  retention_ms INTEGER, retention_bytes INTEGER, max_message_bytes INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE part (
  id INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id < 1 << 20), topic TEXT NOT NULL REFERENCES topic (name) ON DELETE CASCADE,
  number INTEGER NOT NULL, start INTEGER NOT NULL DEFAULT 0, next INTEGER NOT NULL DEFAULT 0,
  bytes INTEGER NOT NULL DEFAULT 0, UNIQUE (topic, number)) STRICT;
CREATE TABLE batch (
  id INTEGER PRIMARY KEY, base INTEGER NOT NULL, max_timestamp INTEGER NOT NULL, at INTEGER NOT NULL,
  bytes BLOB NOT NULL) STRICT;
CREATE TABLE producer (
  part INTEGER NOT NULL REFERENCES part (id) ON DELETE CASCADE, id INTEGER NOT NULL, epoch INTEGER NOT NULL,
  recent TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (part, id)) STRICT, WITHOUT ROWID;
CREATE TABLE committed (
  grp TEXT NOT NULL, part INTEGER NOT NULL REFERENCES part (id) ON DELETE CASCADE, position INTEGER NOT NULL,
  leader_epoch INTEGER NOT NULL, metadata TEXT NOT NULL, at INTEGER NOT NULL,
  PRIMARY KEY (grp, part)) STRICT, WITHOUT ROWID;
CREATE INDEX committed_part ON committed (part);
CREATE TABLE doomed (part INTEGER PRIMARY KEY) STRICT;
PRAGMA application_id = 1299401831;
PRAGMA user_version = 1;
COMMIT;
";

/// Creates the file if it is absent, and rejects one that is not an event log, has a newer schema, or is visibly damaged.
///
/// A new file is renamed to `file` only when complete, so `file` is never half written. An existing file is only read here:
/// another program's file stays byte for byte.
pub(crate) async fn prepare(file: &Path) -> Result<(), Error> {
    match File::open(file) {
        Ok(open) => check_header(file, open),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            // SQLite would treat a foreign write-ahead log as that of the new file.
            if with_suffix(file, "-wal").exists() {
                return Err(Error::Corrupt { file: file.to_owned(), reason: "its write-ahead log exists without it".to_owned() });
            }
            create(file).await
        }
        Err(source) => Err(Error::File { file: file.to_owned(), source }),
    }
}

fn check_header(file: &Path, mut open: File) -> Result<(), Error> {
    let corrupt = |reason: &str| Error::Corrupt { file: file.to_owned(), reason: reason.to_owned() };
    let mut header = [0; 100];
    open.read_exact(&mut header).map_err(|source| match source.kind() {
        io::ErrorKind::UnexpectedEof => corrupt("shorter than a SQLite header"),
        _ => Error::File { file: file.to_owned(), source },
    })?;
    if !header.starts_with(b"SQLite format 3\0") {
        return Err(corrupt("not a SQLite file"));
    }
    if header[68..72] != APPLICATION_ID.to_be_bytes() {
        return Err(corrupt("another program's SQLite file"));
    }
    let found = u32::from_be_bytes([header[60], header[61], header[62], header[63]]);
    if found > SCHEMA_VERSION {
        return Err(Error::SchemaAhead { file: file.to_owned(), found: i64::from(found), known: i64::from(SCHEMA_VERSION) });
    }
    Ok(())
}

async fn create(file: &Path) -> Result<(), Error> {
    let failed = |source| Error::File { file: file.to_owned(), source };
    let draft = with_suffix(file, ".new");
    for leftover in [draft.clone(), with_suffix(file, ".new-journal")] {
        match std::fs::remove_file(&leftover) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
    }
    new_file(&draft).map_err(failed)?;
    fill(&draft).await.map_err(|e| refused(file, "create the event log", e))?;
    std::fs::rename(&draft, file).map_err(failed)?;
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory).and_then(|d| d.sync_all()).map_err(failed)?;
    tracing::info!(file.path = %file.display(), "created a new event log at {}", file.display());
    Ok(())
}

/// Creates an empty file that only its owner may read: records can be personal. SQLite gives its other files the same mode.
fn new_file(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

async fn fill(draft: &Path) -> sqlx::Result<()> {
    let mut connection = SqliteConnectOptions::new()
        .filename(draft)
        .journal_mode(SqliteJournalMode::Delete)
        .synchronous(SqliteSynchronous::Full)
        .disable_statement_logging()
        .connect()
        .await?;
    sqlx::raw_sql(SCHEMA).execute(&mut connection).await?;
    connection.close().await
}

/// Returns the path with `suffix` appended, as SQLite names the files beside a database.
pub(crate) fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
