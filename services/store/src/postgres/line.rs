//! One connection that transactions take in turn.

use std::sync::Arc;

use sqlx::PgConnection;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::super::{Result, StoreError};
use super::error::{Lost, failed};
use super::pool::{begin, bounded, commit};
use super::session::{Kept, Session};

/// One connection that transactions take in turn.
#[derive(Debug)]
pub(super) struct Line {
    connection: Arc<Mutex<Kept>>,
}

/// One transaction. The connection is put back after a commit or rollback only: dropping closes it, and the server rolls back at
/// once.
pub(super) struct Transaction {
    home: OwnedMutexGuard<Kept>,
    connection: Option<PgConnection>,
}

impl Line {
    pub(super) fn new(session: Session) -> Self {
        Self { connection: Arc::new(Mutex::new(Kept::new(session))) }
    }

    pub(super) async fn begin(&self, operation: &'static str) -> Result<Transaction> {
        let mut home = self.connection.clone().lock_owned().await;
        if let Some(mut connection) = home.take_unchecked() {
            // An idle connection may have been lost meanwhile: connect again instead of failing.
            if begin(&mut connection).await.is_ok() {
                return Ok(Transaction { home, connection: Some(connection) });
            }
        }
        let mut connection = home.reconnect(operation).await?;
        begin(&mut connection).await.map_err(failed(operation, Lost::Nothing))?;
        Ok(Transaction { home, connection: Some(connection) })
    }

    /// Runs one statement as a transaction of its own.
    pub(super) async fn alone<T>(
        &self,
        operation: &'static str,
        work: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> Result<T> {
        let mut home = self.connection.lock().await;
        let mut connection = home.take(operation).await?;
        let value = bounded(work(&mut connection)).await.map_err(failed(operation, Lost::Commit))?;
        home.keep(connection);
        Ok(value)
    }
}

impl Transaction {
    /// Runs a step. One that fails or is cancelled does not put the connection back, so no later step can run.
    pub(super) async fn step<T>(
        &mut self,
        operation: &'static str,
        work: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> Result<T> {
        let mut connection = self.take(operation)?;
        let value = bounded(work(&mut connection)).await.map_err(failed(operation, Lost::Nothing))?;
        self.connection = Some(connection);
        Ok(value)
    }

    pub(super) async fn commit(mut self, operation: &'static str) -> Result<()> {
        let mut connection = self.take(operation)?;
        commit(&mut connection).await.map_err(failed(operation, Lost::Commit))?;
        self.home.keep(connection);
        Ok(())
    }

    pub(super) async fn rollback(mut self, operation: &'static str) -> Result<()> {
        let mut connection = self.take(operation)?;
        let rollback = async { sqlx::raw_sql("ROLLBACK").execute(&mut connection).await.map(drop) };
        bounded(rollback).await.map_err(failed(operation, Lost::Nothing))?;
        self.home.keep(connection);
        Ok(())
    }

    fn take(&mut self, operation: &'static str) -> Result<PgConnection> {
        let gone = || StoreError::retry(operation, anyhow::anyhow!("an earlier step of the transaction failed"));
        self.connection.take().ok_or_else(gone)
    }
}
