//! The parking lot in SQLite.

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::super::lot::{KEYS_AT_ONCE, LEASE_SPREAD};
use super::super::{Claim, Claimed, Lot, LotTx, MadeDue, Result, columns};
use super::{Db, failed, first};

const OLDEST_HELD: &str = "SELECT min(parked_at) FROM parked WHERE consumer = ?1 AND needs_type IS NOT NULL \
    AND needs_type NOT IN (SELECT value FROM json_each(?2))";

// There is one writer, so the rows that are found here are unchanged when they are leased.
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

const NEXT_DUE: &str = "SELECT (SELECT next_attempt_at FROM parked WHERE consumer = ?1 AND state <> 'dead' \
    AND next_attempt_at IS NOT NULL AND (needs_type IS NULL OR needs_type IN (SELECT value FROM json_each(?2))) \
    ORDER BY next_attempt_at LIMIT 1)";

// Only heads can have been missed. Each step from head to head is one index lookup, however many events wait behind them.
const HEADS: &str = "WITH RECURSIVE heads(n, record_key) AS (SELECT 1, (SELECT record_key FROM parked WHERE consumer = ?1 AND blocks \
    AND record_key > coalesce(?3, 0) ORDER BY record_key LIMIT 1) \
    UNION ALL SELECT n + 1, (SELECT p.record_key FROM parked p WHERE p.consumer = ?1 AND p.blocks \
    AND p.record_key > heads.record_key ORDER BY p.record_key LIMIT 1) FROM heads WHERE n < ?4 AND record_key IS NOT NULL) \
    SELECT heads.record_key, h.id, h.state = 'waiting' AND h.next_attempt_at IS NULL \
    AND (h.needs_type IS NULL OR h.needs_type IN (SELECT value FROM json_each(?2))) FROM heads CROSS JOIN parked h ON h.id = \
    (SELECT e.id FROM parked e WHERE e.consumer = ?1 AND e.record_key = heads.record_key AND e.blocks ORDER BY e.id LIMIT 1)";

// A row that was a head when it was read is still one, unless it is gone or was made due.
const MISSED: &str = "UPDATE parked SET next_attempt_at = ?2 WHERE id IN (SELECT value FROM json_each(?1)) AND state = 'waiting' \
    AND next_attempt_at IS NULL";

#[async_trait]
impl Lot for Db {
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
        let (rows, abandoned) = unit.step(OPERATION, async |connection| lease(connection, consumer, claim, now).await).await?;
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

    async fn make_due(&self, consumer: &str, types: &[String], after: Option<&Bytes>) -> Result<MadeDue> {
        const OPERATION: &str = "lot.make_due";
        let query = sqlx::query_as(HEADS).bind(consumer).bind(list(types)).bind(after.map(|key| &key[..])).bind(KEYS_AT_ONCE);
        let mut heads: Vec<(Vec<u8>, i64, bool)> = query.fetch_all(&self.readers).await.map_err(failed(OPERATION))?;
        let missed: Vec<i64> = heads.iter().filter(|(.., missed)| *missed).map(|(_, id, _)| *id).collect();
        let goes_on = i32::try_from(heads.len()).is_ok_and(|count| count >= KEYS_AT_ONCE);
        let after = heads.pop().filter(|_| goes_on).map(|(key, ..)| key.into());
        if missed.is_empty() {
            return Ok(MadeDue { due: 0, after });
        }
        let query = sqlx::query(MISSED).bind(list(&missed)).bind(self.now());
        let done = self.writer.write(OPERATION, async |connection| query.execute(connection).await).await?;
        Ok(MadeDue { due: done.rows_affected(), after })
    }

    async fn begin(&self, consumer: &str) -> Result<Box<dyn LotTx>> {
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

/// Returns the time from `from` to `to`, both in ms; zero if `to` is earlier.
fn between(from: i64, to: i64) -> Duration {
    Duration::from_millis(u64::try_from(to - from).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::super::crowd::{Crowd, STEPS, WAITING};
    use super::*;

    #[tokio::test]
    async fn what_is_looked_at_does_not_grow_with_what_waits() {
        for keys in [6, WAITING] {
            let mut crowd = Crowd::of(keys).await;
            let types = vec!["orders.created".to_owned()];
            let claim = Claim { types: &types, lease: Duration::from_secs(40), limit: 32 };
            let (rows, _) = lease(&mut crowd.connection, "worker", &claim, i64::MAX / 2).await.expect("a claim");
            assert_eq!(rows.len(), keys.min(32));
            let claimed = crowd.steps();
            for (what, statement) in [("next due", NEXT_DUE), ("oldest held", OLDEST_HELD)] {
                let query = sqlx::query(statement).bind("worker").bind(list(&types));
                query.fetch_all(&mut crowd.connection).await.expect("an answer");
                let steps = crowd.steps();
                assert!(steps < STEPS, "{keys} keys, {what}: {steps}");
            }
            let heads = sqlx::query(HEADS).bind("worker").bind(list(&types)).bind(None::<&[u8]>).bind(KEYS_AT_ONCE);
            let heads = heads.fetch_all(&mut crowd.connection).await.expect("heads").len();
            assert_eq!(heads, keys.min(1_000));
            let swept = crowd.steps();
            assert!(
                claimed < STEPS && swept < STEPS / 200 * (heads + 10),
                "{keys} keys: {claimed} for a claim, {swept} for a sweep"
            );
        }
    }
}
