//! The steps of a consumer transaction that end or keep claimed rows. Each names the lease and does nothing without it.

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::PgConnection;

use super::super::super::{Identity, Lease, LotTx, Release, Result};
use super::super::events::column;
use super::PgConsumerTx;
use super::journal::storable;

// Rows are selected by a list of ids and checked against the lists in a subquery, never joined with them: a join planned while
// the lot was empty would scan all of it, and the lists for each row.
macro_rules! held {
    () => {
        "p.id = ANY($1::bigint[]) AND (SELECT p.lease_epoch = l.epoch AND p.event_id = l.event_id \
         FROM UNNEST($1::bigint[], $2::bigint[], $3::uuid[]) l(row_id, epoch, event_id) WHERE l.row_id = p.id LIMIT 1)"
    };
}

const DRAIN: &str = concat!("DELETE FROM parked p WHERE ", held!(), " RETURNING p.id, p.record_key, p.blocks");

// The new epoch turns a second run, after a commit in doubt, into a no-op.
const RELEASE: &str = concat!(
    "UPDATE parked p SET leased_until = NULL, lease_epoch = p.lease_epoch + 1, \
     (state, attempts, next_attempt_at, blocks, error_class, error_code, error_message, error_fingerprint, first_failed_at, \
     last_failed_at) = (SELECT CASE WHEN r.again IS NULL THEN 'dead' ELSE 'retrying' END, p.attempts - r.uncounted::int, \
     clock_timestamp() + r.again * interval '1 millisecond', p.blocks AND NOT r.unblocks, \
     CASE WHEN r.at IS NULL THEN p.error_class ELSE r.class END, CASE WHEN r.at IS NULL THEN p.error_code ELSE r.code END, \
     coalesce(r.message, p.error_message), coalesce(r.fingerprint, p.error_fingerprint), coalesce(p.first_failed_at, r.at), \
     coalesce(r.at, p.last_failed_at) FROM UNNEST($1::bigint[], $4::float8[], $5::boolean[], $6::boolean[], $7::text[], \
     $8::text[], $9::text[], $10::bytea[], $11::timestamptz[]) \
     r(row_id, again, uncounted, unblocks, class, code, message, fingerprint, at) WHERE r.row_id = p.id LIMIT 1) WHERE ",
    held!(),
    " RETURNING p.id, p.record_key, ($6::boolean[])[array_position($1::bigint[], p.id)]"
);

const IDENTIFY: &str = concat!(
    "UPDATE parked p SET (event_id, order_id, client_id, type) = (SELECT i.event_id, i.order_id, i.client_id, i.type \
     FROM UNNEST($1::bigint[], $4::uuid[], $5::uuid[], $6::text[], $7::text[]) i(row_id, event_id, order_id, client_id, type) \
     WHERE i.row_id = p.id LIMIT 1) WHERE ",
    held!(),
    " RETURNING p.id"
);

// Runs after the statement that freed the key, so it sees rows that were parked behind it and committed meanwhile. The search
// begins after the row that left, to pass over rows that are deleted but not vacuumed. The update uses the primary key, since no
// index fits `state || ''`.
const NEXT: &str = "UPDATE parked SET next_attempt_at = clock_timestamp() WHERE id = ANY(ARRAY(SELECT h.id \
    FROM UNNEST($2::bytea[], $3::bigint[]) k(record_key, id) CROSS JOIN LATERAL (SELECT p.id, p.record_key, p.consumer \
    FROM parked p WHERE p.blocks AND (p.record_key, p.consumer, p.id) > (k.record_key, $1, k.id) \
    ORDER BY p.record_key, p.consumer, p.id LIMIT 1) h WHERE h.record_key = k.record_key AND h.consumer = $1)) \
    AND state || '' = 'waiting' AND next_attempt_at IS NULL";

#[async_trait]
impl LotTx for PgConsumerTx {
    async fn drain(&mut self, leases: &[Lease]) -> Result<HashSet<i64>> {
        let consumer = &self.consumer;
        self.transaction.step("lot.drain", async |connection| drain(connection, consumer, leases).await).await
    }

    async fn release(&mut self, rows: &[Release]) -> Result<HashSet<i64>> {
        let consumer = &self.consumer;
        self.transaction.step("lot.release", async |connection| release(connection, consumer, rows).await).await
    }

    async fn identify(&mut self, rows: &[Identity]) -> Result<HashSet<i64>> {
        self.transaction.step("lot.identify", async |connection| identify(connection, rows).await).await
    }
}

async fn drain(connection: &mut PgConnection, consumer: &str, leases: &[Lease]) -> sqlx::Result<HashSet<i64>> {
    let query = sqlx::query_as(DRAIN)
        .bind(column(leases, |l| l.id))
        .bind(column(leases, |l| l.epoch))
        .bind(column(leases, |l| l.event_id.0));
    let rows: Vec<(i64, Vec<u8>, bool)> = query.fetch_all(&mut *connection).await?;
    next(connection, consumer, &rows).await?;
    Ok(rows.into_iter().map(|(id, ..)| id).collect())
}

async fn release(connection: &mut PgConnection, consumer: &str, rows: &[Release]) -> sqlx::Result<HashSet<i64>> {
    let query = sqlx::query_as(RELEASE)
        .bind(column(rows, |r| r.lease.id))
        .bind(column(rows, |r| r.lease.epoch))
        .bind(column(rows, |r| r.lease.event_id.0))
        .bind(column(rows, |r| r.again_in.map(millis)))
        .bind(column(rows, |r| r.uncounted))
        .bind(column(rows, |r| r.unblocks))
        .bind(column(rows, |r| r.failure.as_ref().map(|f| f.class)))
        .bind(column(rows, |r| r.failure.as_ref().and_then(|f| f.code)))
        .bind(column(rows, |r| r.failure.as_ref().map(|f| storable(&f.message))))
        .bind(column(rows, |r| r.failure.as_ref().map(|f| &f.fingerprint[..])))
        .bind(column(rows, |r| r.failure.as_ref().map(|f| f.at)));
    let rows: Vec<(i64, Vec<u8>, bool)> = query.fetch_all(&mut *connection).await?;
    next(connection, consumer, &rows).await?;
    Ok(rows.into_iter().map(|(id, ..)| id).collect())
}

/// Makes the next row of each freed key due; `gone` is (id, key, whether the key was freed).
async fn next(connection: &mut PgConnection, consumer: &str, gone: &[(i64, Vec<u8>, bool)]) -> sqlx::Result<()> {
    let (keys, ids): (Vec<&[u8]>, Vec<i64>) =
        gone.iter().filter(|(.., blocked)| *blocked).map(|(id, key, _)| (&key[..], *id)).unzip();
    if keys.is_empty() {
        return Ok(());
    }
    sqlx::query(NEXT).bind(consumer).bind(keys).bind(ids).execute(connection).await.map(drop)
}

async fn identify(connection: &mut PgConnection, rows: &[Identity]) -> sqlx::Result<HashSet<i64>> {
    let query = sqlx::query_scalar(IDENTIFY)
        .bind(column(rows, |i| i.lease.id))
        .bind(column(rows, |i| i.lease.epoch))
        .bind(column(rows, |i| i.lease.event_id.0))
        .bind(column(rows, |i| i.event_id.0))
        .bind(column(rows, |i| i.order_id.0))
        .bind(column(rows, |i| &*i.client_id.0))
        .bind(column(rows, |i| &*i.event_type));
    Ok(query.fetch_all(connection).await?.into_iter().collect())
}

pub(in super::super) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
