//! The seam for families whose statements differ between the databases in a few words only.
//!
//! A statement is written once. Where the databases differ it holds a mark, which each replaces by its own words. A digit names a
//! parameter: `@now1` is the time in parameter 1 or, where that is null, PostgreSQL's clock; `@later1` adds the seconds in
//! parameter 2 to it; `@any3` tests for a member of the list of numbers in parameter 3, `@ids3` of a list of ids; `@each3` is a
//! list of numbers as rows with the column `e.value`; `@json4` takes parameter 4 as JSON. `@lock` locks the rows that are read;
//! `@skip` does too, and leaves out rows that others hold.

use std::collections::HashSet;
use std::fmt::Display;
use std::sync::OnceLock;

use async_trait::async_trait;
use bytes::Bytes;
use minishop_core::clock::Timestamp;
use minishop_core::ids::OrderId;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::columns::{self, Columns};
use super::{NewEvent, Note, Result, Transition};

/// A statement for both SQL dialects.
#[derive(Debug)]
pub(super) struct Statement {
    text: &'static str,
    postgres: OnceLock<String>,
    sqlite: OnceLock<String>,
}

impl Statement {
    pub(super) const fn new(text: &'static str) -> Self {
        Self { text, postgres: OnceLock::new(), sqlite: OnceLock::new() }
    }

    /// Returns the statement with PostgreSQL's words for the marks.
    pub(super) fn postgres(&self) -> &str {
        self.postgres.get_or_init(|| marked(self.text, postgres))
    }

    /// Returns the statement with SQLite's words for the marks.
    pub(super) fn sqlite(&self) -> &str {
        self.sqlite.get_or_init(|| marked(self.text, sqlite))
    }
}

fn marked(text: &str, word: fn(&str, &str) -> String) -> String {
    let mut parts = text.split('@');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let name_end = part.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(part.len());
        let (name, rest) = part.split_at(name_end);
        let number_end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, rest) = rest.split_at(number_end);
        out.push_str(&word(name, number));
        out.push_str(rest);
    }
    out
}

fn postgres(name: &str, n: &str) -> String {
    match name {
        "now" => format!("coalesce(${n}::timestamptz, clock_timestamp())"),
        "later" => format!("(coalesce(${n}::timestamptz, clock_timestamp()) + make_interval(secs => $2::bigint))"),
        "any" => format!("= ANY(${n}::bigint[])"),
        "ids" => format!("= ANY(${n}::uuid[])"),
        "each" => format!("unnest(${n}::bigint[]) AS e(value)"),
        "json" => format!("${n}::jsonb"),
        "lock" => "FOR UPDATE".to_owned(),
        "skip" => "FOR UPDATE SKIP LOCKED".to_owned(),
        other => unreachable!("@{other} is not a valid mark"),
    }
}

fn sqlite(name: &str, n: &str) -> String {
    match name {
        "now" | "json" => format!("${n}"),
        "later" => format!("(${n} + $2 * 1000)"),
        "any" => format!("IN (SELECT value FROM json_each(${n}))"),
        "ids" => format!("IN (SELECT unhex(value) FROM json_each(${n}))"),
        "each" => format!("json_each(${n}) AS e"),
        "lock" | "skip" => String::new(),
        other => unreachable!("@{other} is not a valid mark"),
    }
}

/// A statement's parameter.
#[derive(Debug, Clone)]
pub(super) enum Arg {
    Long(i64),
    Double(f64),
    Text(Option<String>),
    Bytes(Option<Bytes>),
    Id(Option<Uuid>),
    Time(Option<Timestamp>),
    Longs(Vec<i64>),
    Ids(Vec<Uuid>),
    /// The time by PostgreSQL's clock or, with SQLite, by this process's.
    Now,
}

impl Arg {
    pub(super) fn text(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

/// A row of either database.
pub(super) enum Row {
    Postgres(PgRow),
    Sqlite(SqliteRow),
}

macro_rules! either {
    ($($name:ident -> $of:ty),+ $(,)?) => {
        impl Columns for Row {
            $(fn $name(&self, n: usize) -> sqlx::Result<$of> {
                match self {
                    Self::Postgres(row) => Columns::$name(row, n),
                    Self::Sqlite(row) => Columns::$name(row, n),
                }
            })+
        }
    };
}

either!(text -> &str, maybe_text -> Option<&str>, bytes -> &[u8], maybe_bytes -> Option<&[u8]>, id -> Uuid,
    maybe_id -> Option<Uuid>, small -> i16, int -> i32, maybe_int -> Option<i32>, long -> i64, double -> f64, maybe_double -> Option<f64>, flag -> bool,
    time -> Timestamp, maybe_time -> Option<Timestamp>);

/// A database, as the families over [`Statement`] use it.
#[async_trait]
pub(super) trait Database: Send + Sync + std::fmt::Debug {
    /// Runs one statement that only reads.
    async fn read(&self, operation: &'static str, statement: &'static Statement, args: Vec<Arg>) -> Result<Vec<Row>>;
    /// Begins a transaction on the family's own connection. One at a time; never cancelled.
    async fn begin(&self, operation: &'static str) -> Result<Box<dyn Work>>;
}

impl dyn Database {
    /// Reads rows as values.
    pub(super) async fn all<T, E: Display>(
        &self,
        operation: &'static str,
        statement: &'static Statement,
        args: Vec<Arg>,
        read: impl Fn(&Row) -> Result<T, E>,
    ) -> Result<Vec<T>> {
        columns::all(operation, &self.read(operation, statement, args).await?, read)
    }

    /// Reads the first row as a value.
    pub(super) async fn first<T, E: Display>(
        &self,
        operation: &'static str,
        statement: &'static Statement,
        args: Vec<Arg>,
        read: impl Fn(&Row) -> Result<T, E>,
    ) -> Result<Option<T>> {
        columns::first(operation, &self.read(operation, statement, args).await?, read)
    }
}

/// A transaction.
#[async_trait]
pub(super) trait Work: Send {
    /// Runs one statement and returns its rows.
    async fn run(&mut self, statement: &'static Statement, args: Vec<Arg>) -> Result<Vec<Row>>;
    /// Changes the orders whose fence holds, as the consumer does; returns them.
    async fn apply(&mut self, transitions: &[Transition]) -> Result<HashSet<OrderId>>;
    /// Appends events to the outbox and returns their numbers. The last step: it locks their shards until the commit.
    async fn announce(&mut self, events: &[&NewEvent]) -> Result<Vec<i64>>;
    /// Writes timeline rows.
    async fn note(&mut self, notes: &[Note]) -> Result<()>;
    async fn commit(self: Box<Self>) -> Result<()>;
    /// Rolls back. Dropping does too, but with PostgreSQL it closes the connection.
    async fn rollback(self: Box<Self>) -> Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_become_each_databases_own_words() {
        let statement = Statement::new("UPDATE t SET a = @now1, b = @later1 WHERE id @any3 AND c = @json4 @skip");
        assert_eq!(
            statement.sqlite(),
            "UPDATE t SET a = $1, b = ($1 + $2 * 1000) WHERE id IN (SELECT value FROM json_each($3)) AND c = $4 "
        );
        assert!(statement.postgres().ends_with("WHERE id = ANY($3::bigint[]) AND c = $4::jsonb FOR UPDATE SKIP LOCKED"));
        assert!(statement.postgres().contains("a = coalesce($1::timestamptz, clock_timestamp()),"));
    }
}
