//! Endpoints that workers leave alone: each worker tells of its own, for as long as it does. What a dead worker told goes by its age.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use minishop_core::clock::Timestamp;

use super::Result;
use super::columns::{self, Columns};
use super::database::{Arg, Database, Row, Statement};

/// How often a worker says again what it has told.
pub const TOLD_EVERY: Duration = Duration::from_secs(5);
/// After so many seconds without a word of it, a worker is taken for dead.
const STALE: i64 = 15;

static TELL: LazyLock<Statement> = LazyLock::new(|| {
    Statement::new(
        "INSERT INTO endpoint_outage (owner, endpoint, since, why, next_probe_at, told_at) VALUES ($2, $3, $4, $5, $6, @now1) \
         ON CONFLICT (owner, endpoint) DO UPDATE SET since = excluded.since, why = excluded.why, \
         next_probe_at = excluded.next_probe_at, told_at = excluded.told_at",
    )
});

static OVER: LazyLock<Statement> = LazyLock::new(|| Statement::new("DELETE FROM endpoint_outage WHERE owner = $1"));

// Parameter 2 is negative.
static FORGET: LazyLock<Statement> =
    LazyLock::new(|| Statement::new("DELETE FROM endpoint_outage WHERE told_at < (SELECT @later1)"));

static LIST: LazyLock<Statement> = LazyLock::new(|| {
    Statement::new(
        "SELECT owner, endpoint, since, why, next_probe_at FROM endpoint_outage WHERE told_at >= (SELECT @later1) \
         ORDER BY endpoint, owner",
    )
});

/// The family over one database.
#[derive(Debug, Clone)]
pub struct Endpoints(Arc<dyn Database>);

/// Why an endpoint is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    /// Since when.
    pub since: Timestamp,
    /// One sentence for an operator.
    pub why: String,
    /// When a call finds out next; past, while some do.
    pub next_probe_at: Timestamp,
}

/// An endpoint that a worker leaves alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PausedEndpoint {
    /// The worker.
    pub owner: String,
    /// The endpoint's address.
    pub endpoint: String,
    /// Why, since when, and until when.
    pub outage: Outage,
}

impl Endpoints {
    pub(super) fn new(database: Arc<dyn Database>) -> Self {
        Self(database)
    }

    /// Writes that a worker leaves an endpoint alone, or that it does no longer; what dead workers told is deleted.
    pub async fn tell(&self, owner: &str, endpoint: &str, outage: Option<&Outage>) -> Result<()> {
        let mut work = self.0.begin("endpoints.tell").await?;
        work.run(&FORGET, vec![Arg::Now, Arg::Long(-STALE)]).await?;
        match outage {
            None => drop(work.run(&OVER, vec![Arg::text(owner)]).await?),
            Some(outage) => {
                let args = vec![
                    Arg::Now,
                    Arg::text(owner),
                    Arg::text(endpoint),
                    Arg::Time(Some(outage.since)),
                    Arg::text(&outage.why.replace('\0', "\u{fffd}")),
                    Arg::Time(Some(outage.next_probe_at)),
                ];
                work.run(&TELL, args).await?;
            }
        }
        work.commit().await
    }

    /// Lists the endpoints that living workers leave alone.
    pub async fn paused(&self) -> Result<Vec<PausedEndpoint>> {
        const OPERATION: &str = "endpoints.paused";
        columns::all(OPERATION, &self.0.read(OPERATION, &LIST, vec![Arg::Now, Arg::Long(-STALE)]).await?, paused)
    }
}

fn paused(row: &Row) -> sqlx::Result<PausedEndpoint> {
    Ok(PausedEndpoint {
        owner: row.text(0)?.to_owned(),
        endpoint: row.text(1)?.to_owned(),
        outage: Outage { since: row.time(2)?, why: row.text(3)?.to_owned(), next_probe_at: row.time(4)? },
    })
}
