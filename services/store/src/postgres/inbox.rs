//! The consumer transaction in PostgreSQL, on the worker's own connection.

/// Runs a step on the transaction's connection.
macro_rules! step {
    ($self:ident, $operation:literal, |$connection:ident, $consumer:ident| $work:expr) => {{
        let mut connection = $self.take($operation)?;
        let $connection = &mut connection;
        let $consumer = &$self.consumer;
        let value = bounded($work).await.map_err(failed($operation, Lost::Nothing))?;
        $self.connection = Some(connection);
        Ok(value)
    }};
}

mod journal;
mod leased;
mod statements;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use minishop_core::idempotency::IdempotencyKey;
use minishop_core::ids::{ClientId, EventId, OrderId};
use sqlx::PgConnection;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::super::{
    AdoptedOrder, ConsumerTx, Gate, Inbox, InboxEntry, Journal, KnownOrder, Result, StoreError, Transition, columns,
};
use super::error::{Lost, failed};
use super::pool::{Pool, begin, bounded, commit};
use super::session::Session;
pub(super) use journal::note;
pub(super) use leased::millis;
use minishop_core::position::Position;
pub(super) use statements::apply;

/// One connection that transactions take in turn.
#[derive(Debug)]
pub(super) struct Line {
    session: Session,
    connection: Arc<Mutex<Option<PgConnection>>>,
    holds_orders: bool,
}

/// One transaction. The connection is put back only after the commit: dropping closes it, and the server rolls back at once.
pub(super) struct PgConsumerTx {
    home: OwnedMutexGuard<Option<PgConnection>>,
    connection: Option<PgConnection>,
    consumer: String,
    holds_orders: bool,
}

impl Line {
    /// Makes a line. With `holds_orders`, a transaction locks the orders that it reads by id.
    pub(super) fn new(session: Session, holds_orders: bool) -> Self {
        Self { session, connection: Arc::default(), holds_orders }
    }

    pub(super) async fn begin(&self, operation: &'static str, consumer: &str) -> Result<PgConsumerTx> {
        let mut home = self.connection.clone().lock_owned().await;
        if let Some(mut connection) = home.take() {
            // An idle connection may have been lost meanwhile: connect again instead of failing.
            if begin(&mut connection).await.is_ok() {
                return Ok(self.settlement(home, connection, consumer));
            }
        }
        let mut connection = self.session.connect_for(operation).await?;
        begin(&mut connection).await.map_err(failed(operation, Lost::Nothing))?;
        Ok(self.settlement(home, connection, consumer))
    }

    fn settlement(&self, home: OwnedMutexGuard<Option<PgConnection>>, connection: PgConnection, consumer: &str) -> PgConsumerTx {
        PgConsumerTx { home, connection: Some(connection), consumer: consumer.to_owned(), holds_orders: self.holds_orders }
    }
}

/// The inbox, with the worker's own connection.
#[derive(Debug)]
pub(super) struct PgInbox {
    line: Line,
    reads: Pool,
}

impl PgInbox {
    pub(super) fn new(session: Session, reads: Pool) -> Self {
        Self { line: Line::new(session, false), reads }
    }
}

#[async_trait]
impl Inbox for PgInbox {
    async fn begin(&self, consumer: &str) -> Result<Box<dyn ConsumerTx>> {
        Ok(Box::new(self.line.begin("inbox.begin", consumer).await?))
    }

    async fn positions(&self, consumer: &str) -> Result<Vec<Position>> {
        const OPERATION: &str = "inbox.positions";
        let query = sqlx::query("SELECT topic, partition, next_offset FROM consumed WHERE consumer = $1").bind(consumer);
        let rows = self.reads.all(query).await.map_err(failed(OPERATION, Lost::Nothing))?;
        columns::all(OPERATION, &rows, columns::position)
    }
}

impl PgConsumerTx {
    /// Takes the connection for a step. A step that fails or is cancelled does not put it back, so no later step can run.
    fn take(&mut self, operation: &'static str) -> Result<PgConnection> {
        let gone = || StoreError::Retry { operation, source: anyhow::anyhow!("an earlier step of the transaction failed") };
        self.connection.take().ok_or_else(gone)
    }
}

#[async_trait]
impl ConsumerTx for PgConsumerTx {
    async fn gate(&mut self, entries: &[InboxEntry]) -> Result<Gate> {
        step!(self, "inbox.gate", |connection, consumer| statements::gate(connection, consumer, entries))
    }

    async fn known_digests(&mut self, ids: &[EventId]) -> Result<HashMap<EventId, [u8; 32]>> {
        step!(self, "inbox.known_digests", |connection, consumer| statements::known_digests(connection, consumer, ids))
    }

    async fn parked_keys(&mut self, keys: &[Bytes]) -> Result<HashSet<Bytes>> {
        step!(self, "inbox.parked_keys", |connection, consumer| statements::parked_keys(connection, consumer, keys))
    }

    async fn orders(&mut self, ids: &[OrderId], keys: &[(ClientId, IdempotencyKey)]) -> Result<Vec<KnownOrder>> {
        let hold = self.holds_orders;
        let rows = step!(self, "inbox.orders", |connection, _consumer| statements::orders(connection, ids, keys, hold))?;
        columns::all("inbox.orders", &rows, columns::known_order)
    }

    async fn adopt(&mut self, orders: &[AdoptedOrder]) -> Result<HashSet<OrderId>> {
        step!(self, "inbox.adopt", |connection, _consumer| statements::adopt(connection, orders))
    }

    async fn apply(&mut self, transitions: &[Transition]) -> Result<HashSet<OrderId>> {
        step!(self, "inbox.apply", |connection, _consumer| statements::apply(connection, transitions))
    }

    async fn record(&mut self, journal: &Journal) -> Result<Vec<i64>> {
        let recorded = step!(self, "inbox.record", |connection, consumer| journal::record(connection, consumer, journal))?;
        recorded.map_err(|back| StoreError::Retry { operation: "inbox.record", source: back.into() })
    }

    async fn commit(mut self: Box<Self>) -> Result<()> {
        const OPERATION: &str = "inbox.commit";
        let mut connection = self.take(OPERATION)?;
        commit(&mut connection).await.map_err(failed(OPERATION, Lost::Commit))?;
        *self.home = Some(connection);
        Ok(())
    }
}
