//! What PostgreSQL's errors mean for the caller, by SQLSTATE (appendix A of its manual).

use std::borrow::Cow;

use sqlx::error::DatabaseError;

use super::super::StoreError;
use super::super::error::{Contended, OpenError, ValueRefused};

/// A lock was not to be had within `lock_timeout`.
const LOCK_NOT_AVAILABLE: &str = "55P03";

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
        let kind = transient(&error);
        let refused = refused_value(&error);
        let held = code(&error).is_some_and(|code| code == LOCK_NOT_AVAILABLE);
        let mut source = anyhow::Error::new(error);
        if held {
            source = source.context(Contended);
        }
        match (kind, lost) {
            (None, _) => {
                StoreError::Fail { operation, source: if let Some(refused) = refused { source.context(refused) } else { source } }
            }
            (Some(Kind::Lost), Lost::Commit) => StoreError::Unknown { operation, source },
            (Some(_), _) => StoreError::Retry { operation, source },
        }
    }
}

/// Errors that pass.
enum Kind {
    /// The server said no, so nothing was written.
    Refused,
    /// There was no answer.
    Lost,
}

fn transient(error: &sqlx::Error) -> Option<Kind> {
    match error {
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            // The last two groups are refusals to connect (28, 3D000, 55000): an operator mends them while we run.
            let passes = matches!(
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
            ) || ["08", "28", "53", "57P"].iter().any(|class| code.starts_with(class));
            passes.then_some(Kind::Refused)
        }
        // A new connection of the pool failed its checks: the server may be a replica since a fail-over.
        sqlx::Error::Configuration(inner) if inner.is::<OpenError>() => Some(Kind::Refused),
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => Some(Kind::Refused),
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed => Some(Kind::Lost),
        _ => None,
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

fn code(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error().and_then(DatabaseError::code)
}

/// Judges an error at connect.
pub(super) fn open_error(error: sqlx::Error) -> OpenError {
    let code = error.as_database_error().and_then(DatabaseError::code).unwrap_or_default().into_owned();
    let source = |error: sqlx::Error| anyhow::Error::new(error);
    match &error {
        // invalid authorisation, no such database, no privilege
        sqlx::Error::Database(_) if code.starts_with("28") || code == "3D000" || code == "42501" => {
            OpenError::Refused { source: source(error) }
        }
        sqlx::Error::Tls(_) => OpenError::Refused { source: source(error) },
        _ if transient(&error).is_some() => OpenError::Retry { source: source(error) },
        _ => OpenError::Fail { source: source(error) },
    }
}
