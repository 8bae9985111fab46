//! The checker's view of a process on embedded parts.

use std::path::Path;

use minishop_bus::Record;
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{ConnectOptions as _, FromRow};

use crate::checker::{Ledger, Order};
use crate::place;
use crate::process::Process;

/// A running server and its directory.
pub struct Embedded<'a> {
    pub server: &'a Process,
    pub dir: &'a Path,
}

impl Embedded<'_> {
    /// Queries the store over a read-only connection of its own.
    fn rows<T: for<'r> FromRow<'r, SqliteRow> + Send + Unpin>(&self, sql: &'static str) -> Vec<T> {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let options = SqliteConnectOptions::new().filename(self.dir.join("data/minishop.db")).read_only(true);
            let mut connection = options.connect().await.unwrap();
            sqlx::query_as::<_, T>(sql).fetch_all(&mut connection).await.unwrap()
        })
    }
}

impl Ledger for Embedded<'_> {
    fn number(&self, sql: &'static str) -> i64 {
        self.rows::<(i64,)>(sql)[0].0
    }

    fn orders(&self, sql: &'static str) -> Vec<Order> {
        self.rows(sql)
    }

    fn records(&self, topic: &str) -> Vec<Record> {
        place::records(self.server.addr("kafka"), topic)
    }

    fn waiting(&self) -> i64 {
        self.number("SELECT count(*) FROM outbox_waiting")
    }

    /// SQLite has one writer.
    fn deadlocks(&self) -> i64 {
        0
    }
}
