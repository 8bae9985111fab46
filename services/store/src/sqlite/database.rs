//! SQLite for the families whose statements both databases share.

use std::collections::HashSet;

use async_trait::async_trait;
use minishop_core::ids::OrderId;
use sqlx::Sqlite;
use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;

use super::super::database::{Arg, Database, Row, Statement, Work};
use super::super::{NewEvent, Note, Result, Transition};
use super::inbox::{apply, note};
use super::writer::Unit;
use super::{Db, failed, outbox};

#[async_trait]
impl Database for Db {
    async fn read(&self, operation: &'static str, statement: &'static Statement, args: Vec<Arg>) -> Result<Vec<Row>> {
        let rows = query(statement, args, self.now()).fetch_all(&self.readers).await.map_err(failed(operation))?;
        Ok(rows.into_iter().map(Row::Sqlite).collect())
    }

    async fn begin(&self, operation: &'static str) -> Result<Box<dyn Work>> {
        Ok(Box::new(SqliteWork { unit: self.writer.unit(operation).await?, operation, now: self.now() }))
    }
}

/// One transaction: a unit of the writer.
struct SqliteWork {
    unit: Unit,
    operation: &'static str,
    now: i64,
}

#[async_trait]
impl Work for SqliteWork {
    async fn run(&mut self, statement: &'static Statement, args: Vec<Arg>) -> Result<Vec<Row>> {
        let query = query(statement, args, self.now);
        let rows = self.unit.step(self.operation, async |connection| query.fetch_all(connection).await).await?;
        Ok(rows.into_iter().map(Row::Sqlite).collect())
    }

    async fn apply(&mut self, transitions: &[Transition]) -> Result<HashSet<OrderId>> {
        self.unit.step(self.operation, async |connection| apply(connection, transitions).await).await
    }

    async fn announce(&mut self, events: &[&NewEvent]) -> Result<Vec<i64>> {
        self.unit.step(self.operation, async |connection| outbox::append(connection, events, self.now).await).await
    }

    async fn note(&mut self, notes: &[Note]) -> Result<()> {
        self.unit.step(self.operation, async |connection| note(connection, notes).await).await
    }

    async fn commit(self: Box<Self>) -> Result<()> {
        self.unit.commit(self.operation).await
    }

    async fn rollback(self: Box<Self>) -> Result<()> {
        // Dropping the unit rolls back its savepoint.
        Ok(())
    }
}

fn query(statement: &'static Statement, args: Vec<Arg>, now: i64) -> Query<'static, Sqlite, SqliteArguments> {
    args.into_iter().fold(sqlx::query(statement.sqlite()), |query, arg| match arg {
        Arg::Long(value) => query.bind(value),
        Arg::Double(value) => query.bind(value),
        Arg::Text(value) => query.bind(value),
        Arg::Bytes(value) => query.bind(value.map(|bytes| bytes.to_vec())),
        Arg::Id(value) => query.bind(value),
        Arg::Time(value) => query.bind(value.map(|time| time.timestamp_millis())),
        Arg::Longs(values) => query.bind(serde_json::Value::from(values).to_string()),
        Arg::Ids(values) => {
            let digits: Vec<String> = values.iter().map(|id| id.simple().to_string()).collect();
            query.bind(serde_json::Value::from(digits).to_string())
        }
        Arg::Now => query.bind(now),
    })
}
