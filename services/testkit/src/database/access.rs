//! Direct access, beside the store.

use std::fmt::Display;

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Connection as _, FromRow, PgConnection, SqliteConnection};

use super::{Database, Keep, Place};

/// A transaction that keeps its locks.
#[derive(Debug)]
pub struct Held(Connection);

#[derive(Debug)]
pub(crate) enum Connection {
    File(SqliteConnection),
    Server(PgConnection),
}

impl Database {
    /// Runs statements, on a connection of their own; returns how many rows they changed. Several are one transaction on a
    /// server.
    pub async fn sql(&self, sql: &str) -> u64 {
        self.connect().await.run(sql).await
    }

    /// Reads rows.
    pub async fn rows<T>(&self, sql: &str) -> Vec<T>
    where
        T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let query = AssertSqlSafe(sql.to_owned());
        let rows = match self.connect().await {
            Connection::File(mut file) => sqlx::query_as(query).fetch_all(&mut file).await,
            Connection::Server(mut server) => sqlx::query_as(query).fetch_all(&mut server).await,
        };
        rows.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Reads one number.
    pub async fn number(&self, sql: &str) -> i64 {
        self.rows::<(i64,)>(sql).await[0].0
    }

    /// Counts the rows of a table; conditions may follow its name.
    pub async fn count(&self, of: &str) -> i64 {
        self.number(&format!("SELECT count(*) FROM {of}")).await
    }

    /// Runs a statement on the server, outside this database.
    pub async fn administer(&self, sql: &str) {
        if let Keep::OnServer { server, .. } = &*self.keep {
            Connection::server(server).await.run(sql).await;
        }
    }

    /// Runs statements that begin a transaction, and leaves it open.
    pub async fn hold(&self, sql: &str) -> Held {
        let mut connection = self.connect().await;
        connection.script(sql).await;
        Held(connection)
    }

    /// Formats an id as an SQL literal.
    pub fn id(&self, id: impl Display) -> String {
        match &self.place {
            Place::File(_) => format!("x'{}'", id.to_string().replace('-', "")),
            Place::Url(_) => format!("'{id}'::uuid"),
        }
    }

    /// Formats bytes as an SQL literal.
    pub fn bytes(&self, text: &str) -> String {
        match &self.place {
            Place::File(_) => format!("CAST('{text}' AS BLOB)"),
            Place::Url(_) => format!("'{text}'::bytea"),
        }
    }

    /// Formats a time as an SQL literal.
    pub fn time(&self, millis: i64) -> String {
        match &self.place {
            Place::File(_) => millis.to_string(),
            Place::Url(_) => format!("to_timestamp({millis} / 1000.0)"),
        }
    }

    pub(crate) async fn connect(&self) -> Connection {
        match &self.place {
            Place::File(path) => {
                Connection::File(SqliteConnection::connect(path.to_str().unwrap()).await.expect("the file opens"))
            }
            Place::Url(url) => Connection::server(url).await,
        }
    }
}

impl Connection {
    pub(super) async fn server(url: &str) -> Self {
        Self::Server(PgConnection::connect(url).await.expect("the server answers"))
    }

    /// Runs statements; returns how many rows they changed.
    pub(crate) async fn script(&mut self, sql: &str) -> u64 {
        let query = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        let changed = match self {
            Self::File(file) => query.execute(file).await.map(|done| done.rows_affected()),
            Self::Server(server) => query.execute(server).await.map(|done| done.rows_affected()),
        };
        changed.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Runs statements and closes the connection.
    pub(super) async fn run(mut self, sql: &str) -> u64 {
        let changed = self.script(sql).await;
        match self {
            Self::File(file) => file.close().await.unwrap(),
            Self::Server(server) => server.close().await.unwrap(),
        }
        changed
    }
}

impl Held {
    /// Rolls the transaction back.
    pub async fn release(self) {
        self.0.run("ROLLBACK").await;
    }
}
