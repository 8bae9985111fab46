//! What PostgreSQL's errors mean for the caller, by SQLSTATE (appendix A of its manual).

use sqlx::error::DatabaseError;

use super::super::StoreError;
use super::super::error::{OpenError, ValueRefused};

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
        let source = anyhow::Error::new(error);
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
            let passes =
                matches!(&*code, "40001" | "40P01" | "55P03" | "57014" | "25006" | "25P02" | "25P03" | "25P04" | "58030")
                    || ["08", "53", "57P"].iter().any(|class| code.starts_with(class));
            passes.then_some(Kind::Refused)
        }
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => Some(Kind::Refused),
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed => Some(Kind::Lost),
        _ => None,
    }
}

/// Tells whether a value is to blame: data exceptions, broken constraints, values too large for an index.
fn refused_value(error: &sqlx::Error) -> Option<ValueRefused> {
    let database = error.as_database_error()?;
    let code = database.code()?;
    ["22", "23", "54"].iter().any(|class| code.starts_with(class)).then(|| ValueRefused(format!("SQLSTATE {code}")))
}

/// Tells whether the server rolled the statement back because of its neighbours: running it again at once may work.
pub(super) fn is_contention(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(DatabaseError::code).is_some_and(|code| matches!(&*code, "40001" | "40P01" | "55P03"))
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
