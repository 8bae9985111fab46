//! The steps of a settlement that end or keep claimed rows of the lot. Each names the lease and does nothing without it.

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::PgConnection;

use super::super::super::{Identity, Lease, LotSettlement, Release, Result};
use super::super::error::{Lost, failed};
use super::super::events::column;
use super::journal::storable;
use super::{PgSettlement, bounded};

const DRAIN: &str = "DELETE FROM parked p USING UNNEST($1::bigint[], $2::bigint[]) l(row_id, epoch) \
    WHERE p.id = l.row_id AND p.lease_epoch = l.epoch RETURNING p.id, p.record_key, p.blocks";

// The epoch moves on, so that what comes a second time, after a commit in doubt, finds nothing left to do.
const RELEASE: &str = "UPDATE parked p SET state = CASE WHEN r.again IS NULL THEN 'dead' ELSE 'retrying' END, \
    attempts = p.attempts - r.uncounted::int, leased_until = NULL, lease_epoch = p.lease_epoch + 1, \
    next_attempt_at = clock_timestamp() + r.again * interval '1 millisecond', blocks = p.blocks AND NOT r.unblocks, \
    error_class = CASE WHEN r.at IS NULL THEN p.error_class ELSE r.class END, \
    error_code = CASE WHEN r.at IS NULL THEN p.error_code ELSE r.code END, \
    error_message = coalesce(r.message, p.error_message), error_fingerprint = coalesce(r.fingerprint, p.error_fingerprint), \
    first_failed_at = coalesce(p.first_failed_at, r.at), last_failed_at = coalesce(r.at, p.last_failed_at) \
    FROM UNNEST($1::bigint[], $2::bigint[], $3::float8[], $4::boolean[], $5::boolean[], $6::text[], $7::text[], $8::text[], \
    $9::bytea[], $10::timestamptz[]) r(row_id, epoch, again, uncounted, unblocks, class, code, message, fingerprint, at) \
    WHERE p.id = r.row_id AND p.lease_epoch = r.epoch RETURNING p.id, p.record_key, r.unblocks";

const IDENTIFY: &str = "UPDATE parked p SET event_id = i.event_id, order_id = i.order_id, client_id = i.client_id, type = i.type \
    FROM UNNEST($1::bigint[], $2::bigint[], $3::uuid[], $4::uuid[], $5::text[], $6::text[]) \
    i(row_id, epoch, event_id, order_id, client_id, type) \
    WHERE p.id = i.row_id AND p.lease_epoch = i.epoch RETURNING p.id";

// A later statement than the one that let the key go: what was parked behind it and committed meanwhile is seen.
const NEXT: &str = "UPDATE parked SET next_attempt_at = clock_timestamp() WHERE id IN (SELECT h.id FROM UNNEST($2::bytea[]) k(record_key) \
    CROSS JOIN LATERAL (SELECT p.id FROM parked p WHERE p.consumer = $1 AND p.record_key = k.record_key AND p.blocks \
    ORDER BY p.id LIMIT 1) h) AND state = 'waiting' AND next_attempt_at IS NULL";

#[async_trait]
impl LotSettlement for PgSettlement {
    async fn drain(&mut self, leases: &[Lease]) -> Result<HashSet<i64>> {
        step!(self, "lot.drain", |connection, consumer| drain(connection, consumer, leases))
    }

    async fn release(&mut self, rows: &[Release]) -> Result<HashSet<i64>> {
        step!(self, "lot.release", |connection, consumer| release(connection, consumer, rows))
    }

    async fn identify(&mut self, rows: &[Identity]) -> Result<HashSet<i64>> {
        step!(self, "lot.identify", |connection, _consumer| identify(connection, rows))
    }
}

async fn drain(connection: &mut PgConnection, consumer: &str, leases: &[Lease]) -> sqlx::Result<HashSet<i64>> {
    let query = sqlx::query_as(DRAIN).bind(column(leases, |l| l.id)).bind(column(leases, |l| l.epoch));
    let rows: Vec<(i64, Vec<u8>, bool)> = query.fetch_all(&mut *connection).await?;
    next(connection, consumer, &rows).await?;
    Ok(rows.into_iter().map(|(id, ..)| id).collect())
}

async fn release(connection: &mut PgConnection, consumer: &str, rows: &[Release]) -> sqlx::Result<HashSet<i64>> {
    let query = sqlx::query_as(RELEASE)
        .bind(column(rows, |r| r.lease.id))
        .bind(column(rows, |r| r.lease.epoch))
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

/// Makes the next rows due of keys that were let go, of (id, key, whether it held its key up).
async fn next(connection: &mut PgConnection, consumer: &str, gone: &[(i64, Vec<u8>, bool)]) -> sqlx::Result<()> {
    let keys: Vec<&[u8]> = gone.iter().filter(|(.., blocked)| *blocked).map(|(_, key, _)| &key[..]).collect();
    if keys.is_empty() {
        return Ok(());
    }
    sqlx::query(NEXT).bind(consumer).bind(keys).execute(connection).await.map(drop)
}

async fn identify(connection: &mut PgConnection, rows: &[Identity]) -> sqlx::Result<HashSet<i64>> {
    let query = sqlx::query_scalar(IDENTIFY)
        .bind(column(rows, |i| i.lease.id))
        .bind(column(rows, |i| i.lease.epoch))
        .bind(column(rows, |i| i.event_id.0))
        .bind(column(rows, |i| i.order_id.0))
        .bind(column(rows, |i| &*i.client_id.0))
        .bind(column(rows, |i| &*i.event_type));
    Ok(query.fetch_all(connection).await?.into_iter().collect())
}

pub(in super::super) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
