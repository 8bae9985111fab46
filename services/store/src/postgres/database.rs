//! PostgreSQL for the families whose statements both databases share.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use minishop_core::ids::OrderId;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::super::database::{Arg, Database, Row, Statement, Work};
use super::super::{NewEvent, Note, Result, StoreError, Transition};
use super::error::{Lost, failed};
use super::inbox::{apply, note};
use super::outbox;
use super::pool::{Pool, begin, bounded, commit};
use super::session::Session;

/// A pool for reads, and one connection that transactions take in turn.
#[derive(Debug)]
pub(super) struct PgDatabase {
    reads: Pool,
    session: Session,
    connection: Arc<Mutex<Option<PgConnection>>>,
}

impl PgDatabase {
    pub(super) fn new(session: Session, reads: Pool) -> Self {
        Self { reads, session, connection: Arc::default() }
    }
}

#[async_trait]
impl Database for PgDatabase {
    async fn read(&self, operation: &'static str, statement: &'static Statement, args: Vec<Arg>) -> Result<Vec<Row>> {
        let rows = self.reads.all(query(statement, args)).await.map_err(failed(operation, Lost::Nothing))?;
        Ok(rows.into_iter().map(Row::Postgres).collect())
    }

    async fn begin(&self, operation: &'static str) -> Result<Box<dyn Work>> {
        let mut home = self.connection.clone().lock_owned().await;
        if let Some(mut connection) = home.take() {
            // An idle connection may have been lost meanwhile: connect again instead of failing.
            if begin(&mut connection).await.is_ok() {
                return Ok(Box::new(PgWork { home, connection: Some(connection), operation }));
            }
        }
        let mut connection = self.session.connect_for(operation).await?;
        begin(&mut connection).await.map_err(failed(operation, Lost::Nothing))?;
        Ok(Box::new(PgWork { home, connection: Some(connection), operation }))
    }
}

/// One transaction. The connection is put back after a commit or rollback only: dropping closes it, and the server rolls back.
struct PgWork {
    home: OwnedMutexGuard<Option<PgConnection>>,
    connection: Option<PgConnection>,
    operation: &'static str,
}

impl PgWork {
    /// Takes the connection for a step. A step that fails or is cancelled does not put it back, so no later step can run.
    fn take(&mut self) -> Result<PgConnection> {
        let operation = self.operation;
        let gone = || StoreError::Retry { operation, source: anyhow::anyhow!("an earlier step of the transaction failed") };
        self.connection.take().ok_or_else(gone)
    }
}

#[async_trait]
impl Work for PgWork {
    async fn run(&mut self, statement: &'static Statement, args: Vec<Arg>) -> Result<Vec<Row>> {
        let mut connection = self.take()?;
        let rows = bounded(query(statement, args).fetch_all(&mut connection)).await;
        let rows = rows.map_err(failed(self.operation, Lost::Nothing))?;
        self.connection = Some(connection);
        Ok(rows.into_iter().map(Row::Postgres).collect())
    }

    async fn apply(&mut self, transitions: &[Transition]) -> Result<HashSet<OrderId>> {
        let mut connection = self.take()?;
        let passed = bounded(apply(&mut connection, transitions)).await.map_err(failed(self.operation, Lost::Nothing))?;
        self.connection = Some(connection);
        Ok(passed)
    }

    async fn announce(&mut self, events: &[&NewEvent]) -> Result<Vec<i64>> {
        let mut connection = self.take()?;
        let numbers = bounded(outbox::append(&mut connection, events)).await.map_err(failed(self.operation, Lost::Nothing))?;
        self.connection = Some(connection);
        Ok(numbers)
    }

    async fn note(&mut self, notes: &[Note]) -> Result<()> {
        let mut connection = self.take()?;
        bounded(note(&mut connection, notes)).await.map_err(failed(self.operation, Lost::Nothing))?;
        self.connection = Some(connection);
        Ok(())
    }

    async fn commit(mut self: Box<Self>) -> Result<()> {
        let mut connection = self.take()?;
        commit(&mut connection).await.map_err(failed(self.operation, Lost::Commit))?;
        *self.home = Some(connection);
        Ok(())
    }

    async fn rollback(mut self: Box<Self>) -> Result<()> {
        let mut connection = self.take()?;
        let rollback = async { sqlx::raw_sql("ROLLBACK").execute(&mut connection).await.map(drop) };
        bounded(rollback).await.map_err(failed(self.operation, Lost::Nothing))?;
        *self.home = Some(connection);
        Ok(())
    }
}

fn query(statement: &'static Statement, args: Vec<Arg>) -> Query<'static, Postgres, PgArguments> {
    args.into_iter().fold(sqlx::query(statement.postgres.as_str()), |query, arg| match arg {
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
