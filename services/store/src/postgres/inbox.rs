//! The consumer transaction in PostgreSQL.

mod announced;
mod journal;
mod leased;
mod statements;

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use bytes::Bytes;
use minishop_core::idempotency::IdempotencyKey;
use minishop_core::ids::{ClientId, EventId, OrderId};
use sqlx::PgConnection;

use super::super::{
    AdoptedOrder, AnnouncedBatch, ConsumerTx, Gate, Inbox, InboxEntry, Journal, KnownOrder, Result, StoreError, Transition,
    columns,
};
use super::line::{Line, Transaction};
use super::session::Session;
pub(super) use journal::note;
pub(super) use leased::millis;
pub(super) use statements::apply;

/// One transaction of the worker.
pub(super) struct PgConsumerTx {
    transaction: Transaction,
    consumer: String,
    /// Whether orders that are read by id are locked.
    holds_orders: bool,
}

impl PgConsumerTx {
    pub(super) fn new(transaction: Transaction, consumer: &str, holds_orders: bool) -> Self {
        Self { transaction, consumer: consumer.to_owned(), holds_orders }
    }
}

/// The inbox, with the worker's own connection.
#[derive(Debug)]
pub(super) struct PgInbox {
    line: Line,
}

impl PgInbox {
    pub(super) fn new(session: Session) -> Self {
        Self { line: Line::new(session) }
    }
}

#[async_trait]
impl Inbox for PgInbox {
    async fn begin(&self, consumer: &str) -> Result<Box<dyn ConsumerTx>> {
        Ok(Box::new(PgConsumerTx::new(self.line.begin("inbox.begin").await?, consumer, false)))
    }

    fn settles_announced(&self) -> bool {
        true
    }

    async fn settle_announced(&self, consumer: &str, batch: &AnnouncedBatch<'_>) -> Result<Option<Vec<i64>>> {
        let settle = async |connection: &mut PgConnection| announced::settle(connection, consumer, batch).await;
        self.line.alone("inbox.settle_announced", settle).await
    }
}

#[async_trait]
impl ConsumerTx for PgConsumerTx {
    async fn gate(&mut self, entries: &[InboxEntry]) -> Result<Gate> {
        let consumer = &self.consumer;
        self.transaction.step("inbox.gate", async |connection| statements::gate(connection, consumer, entries).await).await
    }

    async fn known_digests(&mut self, ids: &[EventId]) -> Result<HashMap<EventId, [u8; 32]>> {
        let consumer = &self.consumer;
        self.transaction
            .step("inbox.known_digests", async |connection| statements::known_digests(connection, consumer, ids).await)
            .await
    }

    async fn parked_keys(&mut self, keys: &[Bytes]) -> Result<HashSet<Bytes>> {
        let consumer = &self.consumer;
        self.transaction
            .step("inbox.parked_keys", async |connection| statements::parked_keys(connection, consumer, keys).await)
            .await
    }

    async fn orders(&mut self, ids: &[OrderId], keys: &[(ClientId, IdempotencyKey)]) -> Result<Vec<KnownOrder>> {
        const OPERATION: &str = "inbox.orders";
        let hold = self.holds_orders;
        let rows =
            self.transaction.step(OPERATION, async |connection| statements::orders(connection, ids, keys, hold).await).await?;
        columns::all(OPERATION, &rows, columns::known_order)
    }

    async fn adopt(&mut self, orders: &[AdoptedOrder]) -> Result<HashSet<OrderId>> {
        self.transaction.step("inbox.adopt", async |connection| statements::adopt(connection, orders).await).await
    }

    async fn apply(&mut self, transitions: &[Transition]) -> Result<HashSet<OrderId>> {
        self.transaction.step("inbox.apply", async |connection| statements::apply(connection, transitions).await).await
    }

    async fn record(&mut self, journal: &Journal) -> Result<Vec<i64>> {
        const OPERATION: &str = "inbox.record";
        let consumer = &self.consumer;
        let recorded = self.transaction.step(OPERATION, async |connection| journal::record(connection, consumer, journal).await);
        recorded.await?.map_err(|positions| StoreError::went_back(OPERATION, positions))
    }

    async fn commit(self: Box<Self>) -> Result<()> {
        self.transaction.commit("inbox.commit").await
    }
}
