//! What the databases' errors mean for the caller: try again, find out, or give up.

use std::fmt::{self, Display as _};
use std::path::PathBuf;

use super::{Position, StoreError};
use crate::telemetry::Chain;

/// Why a store could not be opened. All but [`OpenError::Retry`] are final: an operator has to act. Its `Debug` is the chain of its
/// causes in one line.
#[derive(thiserror::Error)]
pub enum OpenError {
    /// The file is damaged or another program's. It was not touched.
    #[error("{path} is damaged or not MiniShop's: {reason}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A setting of the database would lose acknowledged orders.
    #[error("the database has {setting}={found}, MiniShop needs {needed}")]
    Unsafe {
        /// The setting, as the database names it.
        setting: &'static str,
        /// Its value.
        found: String,
        /// What it must be.
        needed: &'static str,
    },
    /// Between us and the database stands a connection pooler that cannot be worked with.
    #[error("{what}")]
    Pooler {
        /// What it does, and what to do.
        what: String,
    },
    /// A newer MiniShop has migrated the database.
    #[error("the database has schema {store}, this binary knows {binary}: start a newer binary")]
    SchemaAhead {
        /// The database's version.
        store: i64,
        /// This binary's version.
        binary: i64,
    },
    /// The database was not migrated, and this process may not do it.
    #[error("the database has schema {store}, this binary needs {binary}: run `minishop migrate`")]
    SchemaBehind {
        /// The database's version; 0 when it has none.
        store: i64,
        /// This binary's version.
        binary: i64,
    },
    /// The server answered, and refused: wrong password, no such database, untrusted certificate.
    #[error("the database refuses this login")]
    Refused {
        /// What it said.
        #[source]
        source: anyhow::Error,
    },
    /// The file or its directory cannot be used: missing, read-only, no permission.
    #[error("{path} cannot be used")]
    DataDir {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: anyhow::Error,
    },
    /// The database is away or busy; open it again later.
    #[error("the database is unreachable")]
    Retry {
        /// What happened.
        #[source]
        source: anyhow::Error,
    },
    /// Something else, which will not pass by itself: a migration that fails, a malformed address.
    #[error("the store cannot be opened")]
    Fail {
        /// What happened.
        #[source]
        source: anyhow::Error,
    },
}

// What is derived would show the stack that `anyhow` takes when RUST_BACKTRACE is set, in every log line.
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
    /// Names the error as start-up messages do.
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

    /// Tells whether opening again later may succeed without an operator.
    pub const fn is_retry(&self) -> bool {
        matches!(self, Self::Retry { .. })
    }
}

/// The disk refused to make a commit durable. What it kept is unknown, so the process must end (exit 74) and read it again.
#[derive(Debug, Clone)]
pub struct SyncFailed(pub String);

impl fmt::Display for SyncFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the disk could not sync: {}", self.0)
    }
}

impl std::error::Error for SyncFailed {}

/// Another transaction holds what this one needs, and it did not let go in time. Nothing was written.
#[derive(Debug, Clone, Copy)]
pub struct Contended;

impl fmt::Display for Contended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("another transaction is in the way")
    }
}

/// The store stands lower than this consumer has seen it stand: an older copy has taken its place, as at a fail-over to a replica
/// that lagged. Attached to the source of a [`StoreError::Retry`]: nothing was written, and what lies between is to be read again.
#[derive(Debug, Clone)]
pub struct WentBack(pub Vec<Position>);

impl fmt::Display for WentBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store has gone back in {} partitions", self.0.len())
    }
}

impl std::error::Error for WentBack {}

/// The database refused a value that it was handed: too long, out of range, against a constraint. Attached to the source of a
/// [`StoreError::Fail`] that is the input's fault and not the database's.
#[derive(Debug, Clone)]
pub struct ValueRefused(pub String);

impl fmt::Display for ValueRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the database cannot hold a value: {}", self.0)
    }
}

impl std::error::Error for ValueRefused {}

impl StoreError {
    /// Tells whether the input can never be written. Any other failure is the database's, whatever the input.
    pub fn blames_the_input(&self) -> bool {
        matches!(self, Self::Fail { source, .. } if source.is::<ValueRefused>())
    }

    /// Tells whether another transaction is in the way of a row, and of this row alone: others may go on.
    pub fn is_contended(&self) -> bool {
        matches!(self, Self::Retry { source, .. } if source.is::<Contended>())
    }

    /// Tells whether the disk failed to sync, after which no answer of this process can be trusted: end it with exit 74.
    pub fn is_sync_failure(&self) -> bool {
        matches!(self, Self::Fail { source, .. } if source.is::<SyncFailed>())
    }

    /// Tells where the store stands if it is an older one than the consumer has seen.
    pub fn went_back(&self) -> Option<&[Position]> {
        let Self::Retry { source, .. } = self else { return None };
        source.downcast_ref::<WentBack>().map(|WentBack(positions)| &positions[..])
    }

    /// Tells whether nothing was written and the same call may succeed later.
    pub const fn is_retry(&self) -> bool {
        matches!(self, Self::Retry { .. })
    }

    /// Says that a stored value is not what this binary writes.
    pub(super) fn unreadable(operation: &'static str, what: impl fmt::Display) -> Self {
        Self::Fail { operation, source: anyhow::anyhow!("stored value cannot be read: {what}") }
    }
}

/// Compares the schema's version with what this binary brings; says whether there is something to migrate.
pub(super) const fn compare_schema(store: i64, binary: i64, may_migrate: bool) -> Result<bool, OpenError> {
    if store > binary {
        Err(OpenError::SchemaAhead { store, binary })
    } else if store < binary && !may_migrate {
        Err(OpenError::SchemaBehind { store, binary })
    } else {
        Ok(store < binary)
    }
}
