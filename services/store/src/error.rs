//! What a database's errors mean for the caller: retry, find out whether a commit happened, or give up.

use std::fmt::{self, Display as _};
use std::path::PathBuf;

use minishop_core::chain::Chain;
use minishop_core::position::Position;

use super::StoreError;

/// Why a store could not be opened. All but [`OpenError::Retry`] are final: an operator has to act. `Debug` prints the chain of
/// causes in one line.
#[derive(thiserror::Error)]
pub enum OpenError {
    /// The file is damaged or belongs to another program. It was not touched.
    #[error("{path} is damaged or not a MiniShop store: {reason}")]
    Corrupt { path: PathBuf, reason: String },
    /// The database has a setting with which this binary cannot work safely.
    #[error("the database has {setting}={found}, MiniShop needs {needed}")]
    Unsafe {
        /// The setting, as the database names it.
        setting: &'static str,
        found: String,
        needed: &'static str,
    },
    /// A connection pooler in front of the database shares server connections among sessions, or refuses ours.
    #[error("{what}")]
    Pooler {
        /// What the pooler does, and how to fix it.
        what: String,
    },
    /// A newer MiniShop has migrated the database.
    #[error("the database has schema {store}, this binary knows {binary}: start a newer binary")]
    SchemaAhead { store: i64, binary: i64 },
    /// The database was not migrated, and this process may not do it.
    #[error("the database has schema {store}, this binary needs {binary}: run `minishop migrate`")]
    SchemaBehind {
        /// The database's version; 0 when it has none.
        store: i64,
        binary: i64,
    },
    /// The server answered, and refused: wrong password, no such database, untrusted certificate.
    #[error("the database refuses this login")]
    Refused {
        #[source]
        source: anyhow::Error,
    },
    /// The file or its directory cannot be used: missing, read-only, no permission.
    #[error("{path} cannot be used")]
    DataDir {
        path: PathBuf,
        #[source]
        source: anyhow::Error,
    },
    /// The database is unreachable or busy; open it again later.
    #[error("the database is unreachable")]
    Retry {
        #[source]
        source: anyhow::Error,
    },
    /// Any other error that does not pass by itself: a failed migration, a malformed address.
    #[error("the store cannot be opened")]
    Fail {
        #[source]
        source: anyhow::Error,
    },
}

// A derived `Debug` would print the backtrace that `anyhow` takes when RUST_BACKTRACE is set, in every log line.
impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Chain(self).fmt(f)
    }
}

impl fmt::Debug for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Chain(self).fmt(f)
    }
}

impl OpenError {
    /// Returns the error's code in start-up messages.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Corrupt { .. } => "STORE_CORRUPT",
            Self::Unsafe { .. } => "STORE_UNSAFE",
            Self::Pooler { .. } => "POOLER_UNSUPPORTED",
            Self::SchemaAhead { .. } => "SCHEMA_AHEAD",
            Self::SchemaBehind { .. } => "SCHEMA_BEHIND",
            Self::Refused { .. } => "DEPENDENCY_REFUSED",
            Self::DataDir { .. } => "DATA_DIR",
            Self::Retry { .. } => "UNREACHABLE",
            Self::Fail { .. } => "STORE_FAILED",
        }
    }

    /// Returns whether opening again later may succeed without an operator.
    pub const fn is_retry(&self) -> bool {
        matches!(self, Self::Retry { .. })
    }
}

/// The disk failed to sync a commit. What it holds is unknown, so the process must end (exit 74); the next start reads the disk
/// again.
#[derive(Debug, Clone)]
pub struct SyncFailed(pub String);

impl fmt::Display for SyncFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the disk could not sync: {}", self.0)
    }
}

impl std::error::Error for SyncFailed {}

/// The part of a [`StoreError`] that some callers treat differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// Any other error of its kind.
    Other,
    /// A [`StoreError::Retry`]: another transaction did not release a lock within the lock timeout. Calls on other rows may
    /// succeed.
    Contended,
    /// A [`StoreError::Retry`]: the store is behind what this consumer has seen, since an older copy replaced it, such as a lagging
    /// replica at a fail-over. Holds the stored positions that are behind; the records in between must be read again.
    WentBack(Vec<Position>),
    /// A [`StoreError::Fail`] that the input caused: the database refused a value as too long, out of range or against a
    /// constraint. Any other failure is the database's, whatever the input.
    ValueRefused,
    /// A [`StoreError::Fail`] whose source is [`SyncFailed`]: no answer of this process can be trusted, so it must end.
    SyncFailed,
}

impl StoreError {
    /// Makes a [`StoreError::Retry`] with [`Why::Other`].
    pub fn retry(operation: &'static str, source: impl Into<anyhow::Error>) -> Self {
        Self::Retry { operation, why: Why::Other, source: source.into() }
    }

    /// Makes a [`StoreError::Fail`] with [`Why::Other`].
    pub fn fail(operation: &'static str, source: impl Into<anyhow::Error>) -> Self {
        Self::Fail { operation, why: Why::Other, source: source.into() }
    }

    /// Makes the error of a lock that was not granted in time.
    pub fn contended(operation: &'static str, source: impl Into<anyhow::Error>) -> Self {
        let source = source.into().context("another transaction holds a lock");
        Self::Retry { operation, why: Why::Contended, source }
    }

    /// Makes the error of a refused value.
    pub fn value_refused(operation: &'static str, source: impl Into<anyhow::Error>) -> Self {
        Self::Fail { operation, why: Why::ValueRefused, source: source.into() }
    }

    /// Makes the error of a disk that could not sync.
    pub fn sync_failed(operation: &'static str, text: String) -> Self {
        Self::Fail { operation, why: Why::SyncFailed, source: SyncFailed(text).into() }
    }

    /// Makes the error of stored positions that are behind what the consumer has seen.
    pub(super) fn went_back(operation: &'static str, positions: Vec<Position>) -> Self {
        let source = anyhow::anyhow!("the store went back to older offsets in {} partitions", positions.len());
        Self::Retry { operation, why: Why::WentBack(positions), source }
    }

    /// Returns whether the input can never be written.
    pub const fn blames_the_input(&self) -> bool {
        matches!(self, Self::Fail { why: Why::ValueRefused, .. })
    }

    /// Returns whether another transaction locks a row that this call needs.
    pub const fn is_contended(&self) -> bool {
        matches!(self, Self::Retry { why: Why::Contended, .. })
    }

    /// Returns whether the disk failed to sync.
    pub const fn is_sync_failure(&self) -> bool {
        matches!(self, Self::Fail { why: Why::SyncFailed, .. })
    }

    /// Makes the error of a stored value that this binary cannot read.
    pub(super) fn unreadable(operation: &'static str, what: impl fmt::Display) -> Self {
        Self::fail(operation, anyhow::anyhow!("a stored value cannot be read: {what}"))
    }
}

/// Compares the schema's version with this binary's; returns whether a migration is due.
pub(super) const fn compare_schema(store: i64, binary: i64, may_migrate: bool) -> Result<bool, OpenError> {
    if store > binary {
        Err(OpenError::SchemaAhead { store, binary })
    } else if store < binary && !may_migrate {
        Err(OpenError::SchemaBehind { store, binary })
    } else {
        Ok(store < binary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_with_its_causes_and_no_stack() {
        let refused =
            || anyhow::anyhow!("connection refused").context("cannot connect: connection refused").context("no session");
        let chain = "no session: cannot connect: connection refused";
        let errors: [(&dyn fmt::Debug, &str); 4] = [
            (&StoreError::retry("orders.get", refused()), "orders.get: the store is unavailable"),
            (&StoreError::fail("orders.get", refused()), "orders.get: the store refused"),
            (&StoreError::Unknown { operation: "o", source: refused() }, "o: the outcome of the commit is unknown"),
            (&OpenError::Retry { source: refused() }, "the database is unreachable"),
        ];
        for (error, said) in errors {
            assert_eq!(format!("{error:?}"), format!("{said}: {chain}"));
        }
    }
}
