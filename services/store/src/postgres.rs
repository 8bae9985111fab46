//! The distributed store: PostgreSQL, with connections of its own for each kind of work so that none can starve another.

mod accept_new;
mod cancel;
mod connect;
mod database;
mod error;
mod events;
mod housekeeping;
mod inbox;
mod lease;
mod line;
mod lot;
mod orders;
mod outbox;
mod pool;
mod pooler;
mod session;
mod wal;

use std::sync::Arc;

use super::error::OpenError;
use super::{Endpoints, History, Operations, Reads, Store, Timeline};
use pool::Pool;
use session::Session;
pub use wal::wal_bytes;

/// How a process appears in PostgreSQL, and whether it may change the schema.
#[derive(Debug, Clone)]
pub struct PostgresSettings {
    /// The application name, such as `minishop-api`.
    pub app_name: String,
    /// Whether an older schema is migrated at start.
    pub migrate: bool,
}

/// Connects, checks the server and the schema, and opens the pools.
///
/// A server that is unreachable or starting is [`OpenError::Retry`]: call again later.
pub async fn connect(url: &str, settings: &PostgresSettings) -> Result<Store, OpenError> {
    let sessions = connect::Sessions::new(url, &settings.app_name)?;
    connect::prepare(&sessions, settings.migrate).await?;
    let db = Db {
        reads: Pool::new(&sessions.reads, 8),
        relay: Pool::new(&sessions.relay, 4),
        housekeeping: Pool::new(&sessions.worker, 1),
        intake: sessions.intake.clone(),
        // Like the worker, a cancel changes one order behind a fence.
        cancels: sessions.worker.clone(),
        full: orders::Full::default(),
    };
    let shared = Arc::new(database::PgDatabase::new(sessions.operations.clone(), db.reads.clone()));
    Ok(Store {
        orders: Arc::new(db.clone()),
        reads: Reads(shared.clone()),
        timeline: Timeline(shared.clone()),
        outbox: Arc::new(db.clone()),
        inbox: Arc::new(inbox::PgInbox::new(sessions.worker.clone())),
        endpoints: Endpoints(shared.clone()),
        operations: Operations(shared.clone()),
        history: History(shared),
        lot: Arc::new(lot::PgLot::new(sessions.lot)),
        housekeeping: Arc::new(db),
    })
}

/// Migrates a database's schema and returns its version.
pub async fn migrate(url: &str) -> Result<i64, OpenError> {
    connect::prepare(&connect::Sessions::new(url, "minishop-migrate")?, true).await?;
    Ok(connect::binary_version())
}

/// State shared by the families without a connection of their own.
#[derive(Debug, Clone)]
struct Db {
    reads: Pool,
    relay: Pool,
    housekeeping: Pool,
    intake: Session,
    cancels: Session,
    full: orders::Full,
}
