//! The parking lot in SQLite: how a worker takes it up.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use async_trait::async_trait;
use minishop_core::parking::State;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::super::{Claim, Claimed, LEASE_SPREAD, Lot, LotSettlement, Result, columns};
use super::{Db, failed, first};

const COUNTS: &str = "SELECT state, count(*) FROM parked GROUP BY state";

const OLDEST_HELD: &str = "SELECT min(parked_at) FROM parked WHERE consumer = ?1 AND needs_type IS NOT NULL \
    AND needs_type NOT IN (SELECT value FROM json_each(?2))";

// There is one writer, so what is found here is still so when it is leased.
const DUE: &str = "SELECT h.id, h.leased_until IS NOT NULL FROM parked h WHERE h.consumer = ?1 AND h.state <> 'dead' \
    AND h.next_attempt_at <= ?2 AND (h.leased_until IS NULL OR h.leased_until <= ?2) \
    AND (h.needs_type IS NULL OR h.needs_type IN (SELECT value FROM json_each(?3))) \
    AND (NOT h.blocks OR NOT EXISTS (SELECT 1 FROM parked e \
    WHERE e.consumer = h.consumer AND e.record_key = h.record_key AND e.blocks AND e.id < h.id)) \
    ORDER BY h.next_attempt_at LIMIT ?4";

const LEASE: &str = concat!(
    "UPDATE parked SET state = 'retrying', attempts = attempts + 1, lease_epoch = lease_epoch + 1, leased_until = l.until, \
     next_attempt_at = l.until FROM (SELECT value ->> 0 AS row_id, value ->> 1 AS until FROM json_each(?1)) l \
     WHERE id = l.row_id RETURNING ",
    columns::claimed_columns!()
);

const NEXT_DUE: &str = "SELECT min(next_attempt_at) FROM parked WHERE consumer = ?1 AND state <> 'dead' \
    AND next_attempt_at IS NOT NULL AND (needs_type IS NULL OR needs_type IN (SELECT value FROM json_each(?2)))";

// Only what waits as its key's head can have been missed, and heads are found by the index alone.
const MEND: &str = "UPDATE parked SET next_attempt_at = ?3 \
    WHERE id IN (SELECT min(id) FROM parked WHERE consumer = ?1 AND blocks GROUP BY record_key) AND state = 'waiting' \
    AND next_attempt_at IS NULL AND (needs_type IS NULL OR needs_type IN (SELECT value FROM json_each(?2)))";

#[async_trait]
impl Lot for Db {
    async fn counts(&self) -> Result<HashMap<State, i64>> {
        const OPERATION: &str = "lot.counts";
        let rows = sqlx::query(COUNTS).fetch_all(&self.readers).await.map_err(failed(OPERATION))?;
        Ok(columns::all(OPERATION, &rows, columns::count)?.into_iter().flatten().collect())
    }

    async fn oldest_held(&self, consumer: &str, types: &[String]) -> Result<Option<Duration>> {
        const OPERATION: &str = "lot.oldest_held";
        let query = sqlx::query_scalar(OLDEST_HELD).bind(consumer).bind(list(types));
        let since: Option<i64> = query.fetch_all(&self.readers).await.and_then(first).map_err(failed(OPERATION))?;
        Ok(since.map(|since| between(since, self.now())))
    }

    async fn claim(&self, consumer: &str, claim: &Claim<'_>) -> Result<Vec<Claimed>> {
        const OPERATION: &str = "lot.claim";
        let now = self.now();
        let mut unit = self.writer.unit(OPERATION).await?;
        let mut step = unit.step(OPERATION).await?;
        let (rows, abandoned) = lease(step.connection(), consumer, claim, now).await.map_err(failed(OPERATION))?;
        step.done();
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut claimed = columns::all(OPERATION, &rows, columns::claimed)?;
        unit.commit(OPERATION).await?;
        for row in &mut claimed {
            row.abandoned = abandoned.contains(&row.lease.id);
        }
        Ok(claimed)
    }

    async fn next_due(&self, consumer: &str, types: &[String]) -> Result<Option<Duration>> {
        const OPERATION: &str = "lot.next_due";
        let query = sqlx::query_scalar(NEXT_DUE).bind(consumer).bind(list(types));
        let at: Option<i64> = query.fetch_all(&self.readers).await.and_then(first).map_err(failed(OPERATION))?;
        Ok(at.map(|at| between(self.now(), at)))
    }

    async fn mend(&self, consumer: &str, types: &[String]) -> Result<u64> {
        const OPERATION: &str = "lot.mend";
        let mut unit = self.writer.unit(OPERATION).await?;
        let mut step = unit.step(OPERATION).await?;
        let query = sqlx::query(MEND).bind(consumer).bind(list(types)).bind(self.now());
        let mended = query.execute(step.connection()).await.map_err(failed(OPERATION))?.rows_affected();
        step.done();
        if mended > 0 {
            unit.commit(OPERATION).await?;
        }
        Ok(mended)
    }

    async fn begin(&self, consumer: &str) -> Result<Box<dyn LotSettlement>> {
        Ok(Box::new(self.settlement("lot.begin", consumer).await?))
    }
}

/// Leases due rows; returns them, and the ids of those whose last attempt was abandoned.
async fn lease(
    connection: &mut SqliteConnection,
    consumer: &str,
    claim: &Claim<'_>,
    now: i64,
) -> sqlx::Result<(Vec<SqliteRow>, HashSet<i64>)> {
    let limit = i64::try_from(claim.limit).unwrap_or(i64::MAX);
    let query = sqlx::query_as(DUE).bind(consumer).bind(now).bind(list(claim.types)).bind(limit);
    let due: Vec<(i64, bool)> = query.fetch_all(&mut *connection).await?;
    if due.is_empty() {
        return Ok((Vec::new(), HashSet::new()));
    }
    let until = || {
        let lease = claim.lease.saturating_add(rand::random_range(Duration::ZERO..LEASE_SPREAD));
        now.saturating_add(i64::try_from(lease.as_millis()).unwrap_or(i64::MAX))
    };
    let leases: Vec<(i64, i64)> = due.iter().map(|(id, _)| (*id, until())).collect();
    let rows = sqlx::query(LEASE).bind(list(&leases)).fetch_all(connection).await?;
    Ok((rows, due.into_iter().filter_map(|(id, abandoned)| abandoned.then_some(id)).collect()))
}

fn list<T: serde::Serialize>(values: &[T]) -> String {
    serde_json::to_string(values).expect("texts and numbers are valid JSON")
}

/// Computes how long it is from one time to another; none if the other came first.
fn between(from: i64, to: i64) -> Duration {
    Duration::from_millis(u64::try_from(to - from).unwrap_or(0))
}
