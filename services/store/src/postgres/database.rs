//! PostgreSQL for the families whose statements both databases share.

use std::collections::HashSet;

use async_trait::async_trait;
use minishop_core::ids::OrderId;
use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;

use super::super::database::{Arg, Database, Row, Statement, Work};
use super::super::{NewEvent, Note, Result, Transition};
use super::error::{Lost, failed};
use super::inbox::{apply, note};
use super::line::{Line, Transaction};
use super::outbox;
use super::pool::Pool;
use super::session::Session;

/// A pool for reads, and one connection for transactions.
#[derive(Debug)]
pub(super) struct PgDatabase {
    reads: Pool,
    line: Line,
}

impl PgDatabase {
    pub(super) fn new(session: Session, reads: Pool) -> Self {
        Self { reads, line: Line::new(session) }
    }
}

#[async_trait]
impl Database for PgDatabase {
    async fn read(&self, operation: &'static str, statement: &'static Statement, args: Vec<Arg>) -> Result<Vec<Row>> {
        let rows = self.reads.all(query(statement, args)).await.map_err(failed(operation, Lost::Nothing))?;
        Ok(rows.into_iter().map(Row::Postgres).collect())
    }

    async fn begin(&self, operation: &'static str) -> Result<Box<dyn Work>> {
        Ok(Box::new(PgWork { transaction: self.line.begin(operation).await?, operation }))
    }
}

struct PgWork {
    transaction: Transaction,
    operation: &'static str,
}

#[async_trait]
impl Work for PgWork {
    async fn run(&mut self, statement: &'static Statement, args: Vec<Arg>) -> Result<Vec<Row>> {
        let query = query(statement, args);
        let rows = self.transaction.step(self.operation, async |connection| query.fetch_all(connection).await).await?;
        Ok(rows.into_iter().map(Row::Postgres).collect())
    }

    async fn apply(&mut self, transitions: &[Transition]) -> Result<HashSet<OrderId>> {
        self.transaction.step(self.operation, async |connection| apply(connection, transitions).await).await
    }

    async fn announce(&mut self, events: &[&NewEvent]) -> Result<Vec<i64>> {
        self.transaction.step(self.operation, async |connection| outbox::append(connection, events).await).await
    }

    async fn note(&mut self, notes: &[Note]) -> Result<()> {
        self.transaction.step(self.operation, async |connection| note(connection, notes).await).await
    }

    async fn commit(self: Box<Self>) -> Result<()> {
        self.transaction.commit(self.operation).await
    }

    async fn rollback(self: Box<Self>) -> Result<()> {
        self.transaction.rollback(self.operation).await
    }
}

fn query(statement: &'static Statement, args: Vec<Arg>) -> Query<'static, Postgres, PgArguments> {
    args.into_iter().fold(sqlx::query(statement.postgres()), |query, arg| match arg {
        Arg::Long(value) => query.bind(value),
        Arg::Double(value) => query.bind(value),
        Arg::Text(value) => query.bind(value),
        Arg::Bytes(value) => query.bind(value.map(|bytes| bytes.to_vec())),
        Arg::Id(value) => query.bind(value),
        Arg::Time(value) => query.bind(value),
        Arg::Longs(values) => query.bind(values),
        Arg::Ids(values) => query.bind(values),
        Arg::Now => query.bind(None::<minishop_core::clock::Timestamp>),
    })
}
