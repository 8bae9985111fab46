//! Outages of handler endpoints. Each worker repeats its own report while an outage lasts; a dead worker's report expires.

use std::sync::Arc;
use std::time::Duration;

use minishop_core::clock::Timestamp;

use super::Result;
use super::columns::Columns as _;
use super::database::{Arg, Database, Row, Statement};

/// How often a worker repeats its report.
pub const REPORT_EVERY: Duration = Duration::from_secs(5);
/// Seconds without a report after which a worker counts as dead.
const STALE: i64 = 15;

static TELL: Statement = Statement::new(
    "INSERT INTO endpoint_outage (owner, endpoint, since, why, next_probe_at, told_at) VALUES ($2, $3, $4, $5, $6, @now1) \
     ON CONFLICT (owner, endpoint) DO UPDATE SET since = excluded.since, why = excluded.why, \
     next_probe_at = excluded.next_probe_at, told_at = excluded.told_at",
);

static OVER: Statement = Statement::new("DELETE FROM endpoint_outage WHERE owner = $1");

// Parameter 2 is negative.
static FORGET: Statement = Statement::new("DELETE FROM endpoint_outage WHERE told_at < (SELECT @later1)");

static LIST: Statement = Statement::new(
    "SELECT owner, endpoint, since, why, next_probe_at FROM endpoint_outage WHERE told_at >= (SELECT @later1) \
     ORDER BY endpoint, owner",
);

/// The family over one database.
#[derive(Debug, Clone)]
pub struct Endpoints(pub(super) Arc<dyn Database>);

/// The outage of an endpoint to which a worker pauses its calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    pub since: Timestamp,
    /// One sentence for an operator.
    pub why: String,
    /// When the next probe is due; in the past while probes run.
    pub next_probe_at: Timestamp,
}

/// An endpoint to which a worker pauses its calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PausedEndpoint {
    pub owner: String,
    pub endpoint: String,
    /// What the worker reported last.
    pub outage: Outage,
}

impl Endpoints {
    /// Stores an outage that a worker reports; `None` deletes the worker's outages. Also deletes the reports of dead workers.
    pub async fn report(&self, owner: &str, endpoint: &str, outage: Option<&Outage>) -> Result<()> {
        let mut work = self.0.begin("endpoints.report").await?;
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

    /// Lists the outages that live workers report.
    pub async fn paused(&self) -> Result<Vec<PausedEndpoint>> {
        self.0.all("endpoints.paused", &LIST, vec![Arg::Now, Arg::Long(-STALE)], paused).await
    }
}

fn paused(row: &Row) -> sqlx::Result<PausedEndpoint> {
    Ok(PausedEndpoint {
        owner: row.text(0)?.to_owned(),
        endpoint: row.text(1)?.to_owned(),
        outage: Outage { since: row.time(2)?, why: row.text(3)?.to_owned(), next_probe_at: row.time(4)? },
    })
}
