//! What PostgreSQL's errors mean for the caller, by SQLSTATE (appendix A of its manual).

use std::borrow::Cow;

use sqlx::error::DatabaseError;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

use super::super::StoreError;
use super::super::error::{Contended, OpenError, ValueRefused};
use super::pooler;

/// A lock was not to be had within `lock_timeout`.
const LOCK_NOT_AVAILABLE: &str = "55P03";

const DISK_FULL: &str = "53100";

/// What a lost connection means for the operation that met it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// Nothing can have been committed.
    Nothing,
    /// The statement may have been committed.
    Commit,
}

/// Makes the mapper of an operation's errors.
pub(super) fn failed(operation: &'static str, lost: Lost) -> impl Fn(sqlx::Error) -> StoreError {
    move |error| {
        if lost == Lost::Commit && is_in_doubt(&error) {
            return StoreError::Unknown { operation, source: error.into() };
        }
        let passes = passes(&error);
        let refused = refused_value(&error);
        let held = code(&error).is_some_and(|code| code == LOCK_NOT_AVAILABLE);
        let mut source = anyhow::Error::new(error);
        if held {
            source = source.context(Contended);
        }
        match refused {
            _ if passes => StoreError::Retry { operation, source },
            Some(refused) => StoreError::Fail { operation, source: source.context(refused) },
            None => StoreError::Fail { operation, source },
        }
    }
}

/// Tells whether a commit may have happened all the same: unless the server plainly refused, or nothing was sent, it may.
fn is_in_doubt(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(database) => match database.try_downcast_ref::<PgDatabaseError>() {
            Some(error) => !is_plain(error.severity(), error.code()),
            None => true,
        },
        // There was no connection, or the statement could not be made.
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Configuration(_) | sqlx::Error::Encode(_) => false,
        _ => true,
    }
}

/// Tells whether the server says of this very statement that it was rolled back. A backend that is told to end while its commit
/// waits for the disk finishes it, and says only that it ends; a pooler speaks for a server that has gone.
fn is_plain(severity: PgSeverity, code: &str) -> bool {
    severity == PgSeverity::Error && !["08", "57P"].iter().any(|class| code.starts_with(class))
}

/// Tells whether an error passes: the same call may succeed later.
fn passes(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            // The last two groups are refusals to connect (28, 3D000, 55000): an operator can fix them while we run.
            matches!(
                &*code,
                "40001"
                    | "40P01"
                    | LOCK_NOT_AVAILABLE
                    | "57014"
                    | "25006"
                    | "25P02"
                    | "25P03"
                    | "25P04"
                    | "58030"
                    | "3D000"
                    | "55000"
            ) || ["08", "28", "53", "57P"].iter().any(|class| code.starts_with(class))
        }
        // A new connection of the pool failed its checks: the server may be a replica since a fail-over.
        sqlx::Error::Configuration(inner) => inner.is::<OpenError>(),
        sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::Io(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

/// Tells whether a value is to blame: data exceptions, broken constraints, values too large for an index.
fn refused_value(error: &sqlx::Error) -> Option<ValueRefused> {
    let code = code(error)?;
    ["22", "23", "54"].iter().any(|class| code.starts_with(class)).then(|| ValueRefused(format!("SQLSTATE {code}")))
}

/// Tells whether the server rolled the statement back because of its neighbours: running it again at once may work.
pub(super) fn is_contention(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| matches!(&*code, "40001" | "40P01"))
}

/// Tells whether the server's disk is full.
pub(super) fn is_full(error: &StoreError) -> bool {
    let (StoreError::Retry { source, .. } | StoreError::Unknown { source, .. } | StoreError::Fail { source, .. }) = error;
    source.downcast_ref::<sqlx::Error>().and_then(code).is_some_and(|code| code == DISK_FULL)
}

fn code(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error().and_then(DatabaseError::code)
}

/// Judges an error at connect.
pub(super) fn open_error(error: sqlx::Error) -> OpenError {
    let code = code(&error).unwrap_or_default().into_owned();
    if let Some(refused) = error.as_database_error().and_then(|said| pooler::said_no(&code, said.message())) {
        return refused;
    }
    let source = |error: sqlx::Error| anyhow::Error::new(error);
    match &error {
        // invalid authorisation, no such database, no privilege
        sqlx::Error::Database(_) if code.starts_with("28") || code == "3D000" || code == "42501" => {
            OpenError::Refused { source: source(error) }
        }
        sqlx::Error::Tls(_) => OpenError::Refused { source: source(error) },
        _ if passes(&error) => OpenError::Retry { source: source(error) },
        _ => OpenError::Fail { source: source(error) },
    }
}

#[cfg(test)]
mod tests;
