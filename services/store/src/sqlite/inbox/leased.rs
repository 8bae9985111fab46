//! The steps of a consumer transaction that end or keep claimed rows. Each names the lease and does nothing without it. A pass of
//! the lot has at most a few dozen rows, so each row is a statement.

use std::collections::HashSet;

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::super::super::{Identity, Lease, LotTx, Release, Result};
use super::SqliteConsumerTx;

const DRAIN: &str = "DELETE FROM parked WHERE id = ?1 AND lease_epoch = ?2 AND event_id = ?3 RETURNING record_key, blocks";

// The new epoch turns a second run into a no-op.
const RELEASE: &str = "UPDATE parked SET state = CASE WHEN ?3 IS NULL THEN 'dead' ELSE 'retrying' END, \
    attempts = attempts - ?4, leased_until = NULL, lease_epoch = lease_epoch + 1, next_attempt_at = ?3, \
    blocks = blocks AND NOT ?5, \
    error_class = CASE WHEN ?10 IS NULL THEN error_class ELSE ?6 END, \
    error_code = CASE WHEN ?10 IS NULL THEN error_code ELSE ?7 END, \
    error_message = coalesce(?8, error_message), error_fingerprint = coalesce(?9, error_fingerprint), \
    first_failed_at = coalesce(first_failed_at, ?10), last_failed_at = coalesce(?10, last_failed_at) \
    WHERE id = ?1 AND lease_epoch = ?2 AND event_id = ?11 RETURNING record_key, ?5";

const IDENTIFY: &str = "UPDATE parked SET event_id = ?3, order_id = ?4, client_id = ?5, type = ?6 \
    WHERE id = ?1 AND lease_epoch = ?2 AND event_id = ?7 RETURNING id";

const NEXT: &str = "UPDATE parked SET next_attempt_at = ?3 WHERE id = (SELECT min(id) FROM parked \
    WHERE consumer = ?1 AND record_key = ?2 AND blocks) AND state = 'waiting' AND next_attempt_at IS NULL";

#[async_trait]
impl LotTx for SqliteConsumerTx {
    async fn drain(&mut self, leases: &[Lease]) -> Result<HashSet<i64>> {
        self.unit.step("lot.drain", async |connection| drain(connection, &self.consumer, leases, self.now).await).await
    }

    async fn release(&mut self, rows: &[Release]) -> Result<HashSet<i64>> {
        self.unit.step("lot.release", async |connection| release(connection, &self.consumer, rows, self.now).await).await
    }

    async fn identify(&mut self, rows: &[Identity]) -> Result<HashSet<i64>> {
        self.unit.step("lot.identify", async |connection| identify(connection, rows).await).await
    }
}

async fn drain(connection: &mut SqliteConnection, consumer: &str, leases: &[Lease], now: i64) -> sqlx::Result<HashSet<i64>> {
    let mut held = HashSet::with_capacity(leases.len());
    for lease in leases {
        let query = sqlx::query_as(DRAIN).bind(lease.id).bind(lease.epoch).bind(lease.event_id.0);
        let Some((key, blocked)) = query.fetch_all(&mut *connection).await?.pop() else { continue };
        held.insert(lease.id);
        next(connection, consumer, key, blocked, now).await?;
    }
    Ok(held)
}

async fn release(connection: &mut SqliteConnection, consumer: &str, rows: &[Release], now: i64) -> sqlx::Result<HashSet<i64>> {
    let mut held = HashSet::with_capacity(rows.len());
    for row in rows {
        let failure = row.failure.as_ref();
        let again_at = row.again_in.map(|wait| now.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)));
        let query = sqlx::query_as(RELEASE)
            .bind(row.lease.id)
            .bind(row.lease.epoch)
            .bind(again_at)
            .bind(row.uncounted)
            .bind(row.unblocks)
            .bind(failure.map(|f| f.class))
            .bind(failure.and_then(|f| f.code))
            .bind(failure.map(|f| &*f.message))
            .bind(failure.map(|f| &f.fingerprint[..]))
            .bind(failure.map(|f| f.at.timestamp_millis()))
            .bind(row.lease.event_id.0);
        let Some((key, unblocked)) = query.fetch_all(&mut *connection).await?.pop() else { continue };
        held.insert(row.lease.id);
        next(connection, consumer, key, unblocked, now).await?;
    }
    Ok(held)
}

/// Makes the next row of a key due, if the key was freed.
async fn next(connection: &mut SqliteConnection, consumer: &str, key: Vec<u8>, free: bool, now: i64) -> sqlx::Result<()> {
    if free {
        sqlx::query(NEXT).bind(consumer).bind(key).bind(now).execute(connection).await?;
    }
    Ok(())
}

async fn identify(connection: &mut SqliteConnection, rows: &[Identity]) -> sqlx::Result<HashSet<i64>> {
    let mut held = HashSet::with_capacity(rows.len());
    for row in rows {
        let query = sqlx::query_scalar::<_, i64>(IDENTIFY)
            .bind(row.lease.id)
            .bind(row.lease.epoch)
            .bind(row.event_id.0)
            .bind(row.order_id.0)
            .bind(&row.client_id.0)
            .bind(&row.event_type)
            .bind(row.lease.event_id.0);
        held.extend(query.fetch_all(&mut *connection).await?);
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use minishop_core::ids::EventId;

    use super::super::super::crowd::{Crowd, STEPS, WAITING};
    use super::*;

    #[tokio::test]
    async fn what_is_looked_at_does_not_grow_with_what_waits() {
        for keys in [6, WAITING] {
            let mut crowd = Crowd::of(keys).await;
            let event = |n| EventId(uuid::Uuid::from_slice(&Crowd::event(n)).expect("16 bytes"));
            let leases: Vec<Lease> =
                (0..6_u8).map(|n| Lease { id: i64::from(n) + 1, epoch: 0, event_id: event(n.into()) }).collect();
            let again = Some(Duration::ZERO);
            let rows = leases.iter().map(|lease| Release {
                lease: *lease,
                again_in: again,
                uncounted: true,
                unblocks: true,
                failure: None,
            });
            let rows: Vec<_> = rows.collect();
            let held = release(&mut crowd.connection, "worker", &rows, 0).await.expect("a release");
            let for_release = crowd.steps();
            let later: Vec<Lease> = leases.iter().map(|lease| Lease { epoch: 1, ..*lease }).collect();
            let drained = drain(&mut crowd.connection, "worker", &later, 0).await.expect("a drain");
            let for_drain = crowd.steps();
            assert_eq!((held.len(), drained.len()), (6, 6));
            assert!(
                for_release < STEPS && for_drain < STEPS,
                "{keys} keys: {for_release} for a release, {for_drain} for a drain"
            );
        }
    }
}
