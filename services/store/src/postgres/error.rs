//! What PostgreSQL's errors mean for the caller, by SQLSTATE (appendix A of its manual).

use std::borrow::Cow;

use sqlx::error::DatabaseError;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

use super::super::StoreError;
use super::super::error::OpenError;
use super::pooler;

/// A lock was not granted within `lock_timeout`.
const LOCK_NOT_AVAILABLE: &str = "55P03";

const DISK_FULL: &str = "53100";

pub(super) const UNIQUE_VIOLATION: &str = "23505";

/// What a lost connection means for the operation that met it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// Nothing can have been committed.
    Nothing,
    /// The statement may have been committed.
    Commit,
}

/// Returns a mapper for the errors of an operation.
pub(super) fn failed(operation: &'static str, lost: Lost) -> impl Fn(sqlx::Error) -> StoreError {
    move |error| {
        if lost == Lost::Commit && is_in_doubt(&error) {
            return StoreError::Unknown { operation, source: error.into() };
        }
        let code = code(&error).unwrap_or_default().into_owned();
        if code == LOCK_NOT_AVAILABLE {
            StoreError::contended(operation, error)
        } else if passes(&error) {
            StoreError::retry(operation, error)
        } else if is_refused_value(&code) {
            let refused = format!("the database refuses a value: SQLSTATE {code}");
            StoreError::value_refused(operation, anyhow::Error::new(error).context(refused))
        } else {
            StoreError::fail(operation, error)
        }
    }
}

/// Returns whether a commit may have happened all the same: unless the server plainly refused it, or nothing was sent.
fn is_in_doubt(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(database) => match database.try_downcast_ref::<PgDatabaseError>() {
            Some(error) => !is_plain(error.severity(), error.code()),
            None => true,
        },
        // There was no connection, or the statement could not be encoded.
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Configuration(_) | sqlx::Error::Encode(_) => false,
        _ => true,
    }
}

/// Returns whether the server reports that it rolled back this very statement. A backend that is terminated while its commit
/// waits for the disk finishes the commit and reports only the termination; a pooler answers for a server that is gone.
fn is_plain(severity: PgSeverity, code: &str) -> bool {
    severity == PgSeverity::Error && !["08", "57P"].iter().any(|class| code.starts_with(class))
}

/// Returns whether the same call may succeed later.
fn passes(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            // 28, 3D000 and 55000 are refusals to connect: an operator can fix them while we run.
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

/// Returns whether a value was refused: a data exception, a broken constraint, or a value too large for an index.
fn is_refused_value(code: &str) -> bool {
    ["22", "23", "54"].iter().any(|class| code.starts_with(class))
}

/// Returns whether the server rolled the statement back because of concurrent ones: running it again at once may work.
pub(super) fn is_contention(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| matches!(&*code, "40001" | "40P01"))
}

/// Returns whether the server's disk is full.
pub(super) fn is_full(error: &sqlx::Error) -> bool {
    has_code(error, DISK_FULL)
}

/// Returns whether the server reported this SQLSTATE.
pub(super) fn has_code(error: &sqlx::Error, sqlstate: &str) -> bool {
    code(error).is_some_and(|code| code == sqlstate)
}

fn code(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error().and_then(DatabaseError::code)
}

/// Classifies an error at connect.
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
