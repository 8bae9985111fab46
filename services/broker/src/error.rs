//! The errors of an event log, and what a SQLite error means for it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the log cannot be opened or had to stop. Errors of one request never appear here: the client gets a Kafka code.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not an event log or is damaged. It was not changed.
    #[error("{}: {reason}; restore it from a copy or move it away; it is never recreated", file.display())]
    Corrupt { file: PathBuf, reason: String },
    /// The file was written by a newer version of this program.
    #[error("{}: schema version {found}, this program knows {known}", file.display())]
    SchemaAhead { file: PathBuf, found: i64, known: i64 },
    /// SQLite did not accept a setting that durability depends on.
    #[error("SQLite setting {setting} is {found}, but must be {expected}")]
    Unsafe { setting: &'static str, found: String, expected: String },
    #[error("cannot listen on {addr}: {source}")]
    Bind { addr: SocketAddr, source: io::Error },
    /// The file or its directory cannot be used.
    #[error("{}: {source}", file.display())]
    File { file: PathBuf, source: io::Error },
    /// The disk did not confirm a write, so its content is unknown: the process must end and start again.
    #[error("the disk did not confirm a write of the event log: {0}")]
    Fsync(#[source] sqlx::Error),
    /// SQLite refused an operation for another reason.
    #[error("{operation}: {source}")]
    Store { operation: &'static str, source: sqlx::Error },
    /// A topic cannot be created: its name is invalid, or it exists with another partition count.
    #[error("topic {name}: {reason}")]
    Topic { name: String, reason: String },
    #[error("the event log has stopped")]
    Stopped,
}

impl Error {
    /// Returns the stable code of this error, for operators.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Corrupt { .. } => "STORE_CORRUPT",
            Self::SchemaAhead { .. } => "SCHEMA_AHEAD",
            Self::Unsafe { .. } => "STORE_UNSAFE",
            Self::Bind { .. } => "BIND_FAILED",
            Self::File { .. } => "DATA_DIR",
            Self::Fsync(_) => "STORE_FSYNC",
            Self::Store { .. } => "STORE_UNAVAILABLE",
            Self::Topic { .. } => "TOPIC_UNSAFE",
            Self::Stopped => "SHUTTING_DOWN",
        }
    }
}

/// How the log reacts to a SQLite error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The content of the disk is unknown: end.
    Fsync,
    Corrupt,
    /// Roll back, reopen and retry until it works (disk full, I/O error, busy).
    Retry,
}

const SQLITE_CORRUPT: i32 = 11;
const SQLITE_NOTADB: i32 = 26;
const SQLITE_IOERR_FSYNC: i32 = 0x40a;
const SQLITE_IOERR_DIR_FSYNC: i32 = 0x50a;

/// Classifies an error by SQLite's extended result code.
pub(crate) fn fault(error: &sqlx::Error) -> Fault {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code).and_then(|code| code.parse::<i32>().ok());
    match code {
        Some(SQLITE_IOERR_FSYNC | SQLITE_IOERR_DIR_FSYNC) => Fault::Fsync,
        Some(code) if matches!(code & 0xff, SQLITE_CORRUPT | SQLITE_NOTADB) => Fault::Corrupt,
        _ => Fault::Retry,
    }
}
