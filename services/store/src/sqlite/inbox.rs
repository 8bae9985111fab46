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
use super::writer::Unit;
use super::{Db, failed};
pub(super) use journal::note;
use minishop_core::position::Position;
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

    async fn positions(&self, consumer: &str) -> Result<Vec<Position>> {
        const OPERATION: &str = "inbox.positions";
        let query = sqlx::query("SELECT topic, partition, next_offset FROM consumed WHERE consumer = ?1").bind(consumer);
        let rows = query.fetch_all(&self.readers).await.map_err(failed(OPERATION))?;
        columns::all(OPERATION, &rows, columns::position)
    }
}

#[async_trait]
impl ConsumerTx for SqliteConsumerTx {
    async fn gate(&mut self, entries: &[InboxEntry]) -> Result<Gate> {
        const OPERATION: &str = "inbox.gate";
        let mut step = self.unit.step(OPERATION).await?;
        let gate = statements::gate(step.connection(), &self.consumer, entries, self.now).await.map_err(failed(OPERATION))?;
        step.done();
        Ok(gate)
    }

    async fn known_digests(&mut self, ids: &[EventId]) -> Result<HashMap<EventId, [u8; 32]>> {
        const OPERATION: &str = "inbox.known_digests";
        let mut step = self.unit.step(OPERATION).await?;
        let settled = statements::known_digests(step.connection(), &self.consumer, ids).await.map_err(failed(OPERATION))?;
        step.done();
        Ok(settled)
    }

    async fn parked_keys(&mut self, keys: &[Bytes]) -> Result<HashSet<Bytes>> {
        const OPERATION: &str = "inbox.parked_keys";
        let mut step = self.unit.step(OPERATION).await?;
        let parked = statements::parked_keys(step.connection(), &self.consumer, keys).await.map_err(failed(OPERATION))?;
        step.done();
        Ok(parked)
    }

    async fn orders(&mut self, ids: &[OrderId], keys: &[(ClientId, IdempotencyKey)]) -> Result<Vec<KnownOrder>> {
        const OPERATION: &str = "inbox.orders";
        let mut step = self.unit.step(OPERATION).await?;
        let rows = statements::orders(step.connection(), ids, keys).await.map_err(failed(OPERATION))?;
        let known = columns::all(OPERATION, &rows, columns::known_order)?;
        step.done();
        Ok(known)
    }

    async fn adopt(&mut self, orders: &[AdoptedOrder]) -> Result<HashSet<OrderId>> {
        const OPERATION: &str = "inbox.adopt";
        let mut step = self.unit.step(OPERATION).await?;
        let made = statements::adopt(step.connection(), orders).await.map_err(failed(OPERATION))?;
        step.done();
        Ok(made)
    }

    async fn apply(&mut self, transitions: &[Transition]) -> Result<HashSet<OrderId>> {
        const OPERATION: &str = "inbox.apply";
        let mut step = self.unit.step(OPERATION).await?;
        let passed = statements::apply(step.connection(), transitions).await.map_err(failed(OPERATION))?;
        step.done();
        Ok(passed)
    }

    async fn record(&mut self, journal: &Journal) -> Result<Vec<i64>> {
        const OPERATION: &str = "inbox.record";
        let mut step = self.unit.step(OPERATION).await?;
        let places = journal::record(step.connection(), &self.consumer, journal, self.now).await.map_err(failed(OPERATION))?;
        step.done();
        places.map_err(|back| StoreError::Retry { operation: OPERATION, source: back.into() })
    }

    async fn commit(self: Box<Self>) -> Result<()> {
        self.unit.commit("inbox.commit").await
    }
}
