//! The consumer transaction in SQLite: a unit of the writer, step by step.

mod journal;
mod leased;
mod statements;

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use bytes::Bytes;
use minishop_core::idempotency::IdempotencyKey;
use minishop_core::ids::{ClientId, EventId, OrderId};

use super::super::{
    AdoptedOrder, ConsumerTx, Gate, Inbox, InboxEntry, Journal, KnownOrder, Result, StoreError, Transition, columns,
};
use super::Db;
use super::writer::Unit;
pub(super) use journal::note;
pub(super) use statements::apply;

#[derive(Debug)]
pub(super) struct SqliteConsumerTx {
    unit: Unit,
    consumer: String,
    now: i64,
}

impl Db {
    pub(super) async fn settlement(&self, operation: &'static str, consumer: &str) -> Result<SqliteConsumerTx> {
        let unit = self.writer.unit(operation).await?;
        Ok(SqliteConsumerTx { unit, consumer: consumer.to_owned(), now: self.now() })
    }
}

#[async_trait]
impl Inbox for Db {
    async fn begin(&self, consumer: &str) -> Result<Box<dyn ConsumerTx>> {
        Ok(Box::new(self.settlement("inbox.begin", consumer).await?))
    }
}

#[async_trait]
impl ConsumerTx for SqliteConsumerTx {
    async fn gate(&mut self, entries: &[InboxEntry]) -> Result<Gate> {
        self.unit
            .step("inbox.gate", async |connection| statements::gate(connection, &self.consumer, entries, self.now).await)
            .await
    }

    async fn known_digests(&mut self, ids: &[EventId]) -> Result<HashMap<EventId, [u8; 32]>> {
        self.unit
            .step("inbox.known_digests", async |connection| statements::known_digests(connection, &self.consumer, ids).await)
            .await
    }

    async fn parked_keys(&mut self, keys: &[Bytes]) -> Result<HashSet<Bytes>> {
        self.unit
            .step("inbox.parked_keys", async |connection| statements::parked_keys(connection, &self.consumer, keys).await)
            .await
    }

    async fn orders(&mut self, ids: &[OrderId], keys: &[(ClientId, IdempotencyKey)]) -> Result<Vec<KnownOrder>> {
        const OPERATION: &str = "inbox.orders";
        let rows = self.unit.step(OPERATION, async |connection| statements::orders(connection, ids, keys).await).await?;
        columns::all(OPERATION, &rows, columns::known_order)
    }

    async fn adopt(&mut self, orders: &[AdoptedOrder]) -> Result<HashSet<OrderId>> {
        self.unit.step("inbox.adopt", async |connection| statements::adopt(connection, orders).await).await
    }

    async fn apply(&mut self, transitions: &[Transition]) -> Result<HashSet<OrderId>> {
        self.unit.step("inbox.apply", async |connection| statements::apply(connection, transitions).await).await
    }

    async fn record(&mut self, journal: &Journal) -> Result<Vec<i64>> {
        const OPERATION: &str = "inbox.record";
        let (consumer, now) = (&self.consumer, self.now);
        let recorded = self.unit.step(OPERATION, async |connection| journal::record(connection, consumer, journal, now).await);
        recorded.await?.map_err(|positions| StoreError::went_back(OPERATION, positions))
    }

    async fn commit(self: Box<Self>) -> Result<()> {
        self.unit.commit("inbox.commit").await
    }
}
