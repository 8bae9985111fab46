//! Connection pools. Every statement is bounded: a server that stays silent counts as a lost connection.

use std::time::Duration;

use sqlx::postgres::{PgArguments, PgPoolOptions, PgRow};
use sqlx::query::Query;
use sqlx::{PgConnection, PgPool, Postgres};

use super::session::{SILENCE, Session};

type Sql<'q> = Query<'q, Postgres, PgArguments>;

/// Connections of one kind. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Pool(PgPool);

impl Pool {
    /// Opens a pool that checks each new connection. Callers wait only briefly for one, since requests have queued before: it is better
    /// to refuse them than to queue them twice.
    pub(super) fn new(session: &Session, size: u32) -> Self {
        let check = session.clone();
        let pool = PgPoolOptions::new()
            .max_connections(size)
            .acquire_timeout(Duration::from_millis(500))
            .after_connect(move |connection, _| {
                let check = check.clone();
                Box::pin(async move { check.check(connection).await.map_err(|error| sqlx::Error::Configuration(error.into())) })
            })
            .connect_lazy_with(session.options().clone());
        Self(pool)
    }

    pub(super) async fn all(&self, sql: Sql<'_>) -> sqlx::Result<Vec<PgRow>> {
        self.lend(async |connection| sql.fetch_all(connection).await).await
    }

    pub(super) async fn one(&self, sql: Sql<'_>) -> sqlx::Result<PgRow> {
        self.lend(async |connection| sql.fetch_one(connection).await).await
    }

    /// Returns how many rows changed.
    pub(super) async fn execute(&self, sql: Sql<'_>) -> sqlx::Result<u64> {
        self.lend(async |connection| Ok(sql.execute(connection).await?.rows_affected())).await
    }

    /// Runs `work` in a transaction. Its connection is put back only after the commit; else closing it rolls back.
    pub(super) async fn transaction<T>(&self, work: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>) -> sqlx::Result<T> {
        self.within("BEGIN", work).await
    }

    /// Runs statements in a transaction that is rolled back.
    pub(super) async fn attempt(&self, sql: &'static str) -> sqlx::Result<()> {
        self.lend(async |connection| {
            sqlx::raw_sql("BEGIN").execute(&mut *connection).await?;
            let outcome = sqlx::raw_sql(sql).execute(&mut *connection).await;
            sqlx::raw_sql("ROLLBACK").execute(connection).await?;
            outcome.map(drop)
        })
        .await
    }

    async fn within<T>(
        &self,
        begin: &'static str,
        work: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> sqlx::Result<T> {
        let mut lent = Lent(Some(self.0.acquire().await?));
        let connection: &mut PgConnection = lent.0.as_mut().expect("filled in the line above");
        let work = async {
            sqlx::raw_sql(begin).execute(&mut *connection).await?;
            let value = work(&mut *connection).await?;
            commit(connection).await?;
            Ok(value)
        };
        let value = bounded(work).await?;
        drop(lent.0.take());
        Ok(value)
    }

    async fn lend<T>(&self, work: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>) -> sqlx::Result<T> {
        let mut connection = self.0.acquire().await?;
        let outcome = tokio::time::timeout(SILENCE, work(&mut connection)).await;
        outcome.unwrap_or_else(|_| {
            // In the pool it would make its next user wait, too.
            drop(connection.detach());
            Err(silent())
        })
    }
}

/// A connection that is closed unless it is taken out.
struct Lent(Option<sqlx::pool::PoolConnection<Postgres>>);

impl Drop for Lent {
    fn drop(&mut self) {
        drop(self.0.take().map(sqlx::pool::PoolConnection::detach));
    }
}

/// Begins a transaction, in one round trip.
pub(super) async fn begin(connection: &mut PgConnection) -> sqlx::Result<()> {
    bounded(async { sqlx::raw_sql("BEGIN").execute(connection).await.map(drop) }).await
}

/// Commits by the simple protocol. By the extended one the server says `COMMIT` and then waits for the client's next message: a
/// backend that is terminated there, after the commit, answers with that error.
pub(super) async fn commit(connection: &mut PgConnection) -> sqlx::Result<()> {
    bounded(async { sqlx::raw_sql("COMMIT").execute(connection).await.map(drop) }).await
}

/// Bounds the wait for a silent server. After a timeout the connection must not be used.
pub(super) async fn bounded<T>(work: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    tokio::time::timeout(SILENCE, work).await.unwrap_or_else(|_| Err(silent()))
}

fn silent() -> sqlx::Error {
    sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())
}
