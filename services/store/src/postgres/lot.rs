//! The parking lot in PostgreSQL.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::postgres::PgRow;

use super::super::columns::{self, Columns};
use super::super::lot::{KEYS_AT_ONCE, LEASE_SPREAD};
use super::super::{Claim, Claimed, Lot, LotTx, MadeDue, Result};
use super::error::{Lost, failed};
use super::inbox::{PgConsumerTx, millis};
use super::line::Line;
use super::pool::Pool;
use super::session::Session;

const OLDEST_HELD: &str = "SELECT extract(epoch FROM clock_timestamp() - (SELECT parked_at FROM parked \
    WHERE consumer = $1 AND needs_type IS NOT NULL AND NOT needs_type = ANY($2) ORDER BY parked_at LIMIT 1))::float8";

// The clock is read once, in a subquery: read for each row, it could not be searched by an index. `SKIP LOCKED` leaves no gap in
// a key: only heads qualify, and a locked one is being claimed or settled by another transaction. A row is its key's head if the
// index finds none before it from the start of the key. The leases of one claim end one after the other, see `LEASE_SPREAD`.
//
// Nothing here is joined, see `Session::lookups`: the rows to lease are a list of ids.
const CLAIM: &str = concat!(
    "WITH due AS MATERIALIZED (SELECT h.id AS row_id, h.leased_until IS NOT NULL AS abandoned, random() AS late FROM parked h \
     WHERE h.consumer = $1 AND h.state <> 'dead' AND h.next_attempt_at <= (SELECT clock_timestamp()) \
     AND (h.leased_until IS NULL OR h.leased_until <= (SELECT clock_timestamp())) \
     AND (h.needs_type IS NULL OR h.needs_type = ANY($2)) \
     AND (NOT h.blocks OR h.id = (SELECT e.id FROM parked e WHERE e.blocks \
     AND (e.record_key, e.consumer) >= (h.record_key, h.consumer) ORDER BY e.record_key, e.consumer, e.id LIMIT 1)) \
     ORDER BY h.next_attempt_at LIMIT $4 FOR UPDATE OF h SKIP LOCKED), \
     until AS MATERIALIZED (SELECT row_id, abandoned, \
     clock_timestamp() + ($3::float8 + late * $5::float8) * interval '1 millisecond' AS at FROM due) \
     UPDATE parked SET state = 'retrying', attempts = attempts + 1, lease_epoch = lease_epoch + 1, \
     (leased_until, next_attempt_at) = (SELECT u.at, u.at FROM until u WHERE u.row_id = id) \
     WHERE id = ANY(ARRAY(SELECT row_id FROM until)) RETURNING ",
    columns::claimed_columns!(),
    ", (SELECT u.abandoned FROM until u WHERE u.row_id = id)"
);

const NEXT_DUE: &str = "SELECT extract(epoch FROM (SELECT next_attempt_at FROM parked WHERE consumer = $1 AND state <> 'dead' \
    AND next_attempt_at IS NOT NULL AND (needs_type IS NULL OR needs_type = ANY($2)) \
    ORDER BY next_attempt_at LIMIT 1) - clock_timestamp())::float8";

// Only heads can have been missed. Each step from head to head is one index lookup, however many events wait behind them. A page begins
// with the key at which the last one ended, since another consumer's head may have been its last. The update uses the primary key,
// since no index fits `state || ''`.
const MAKE_DUE: &str = "WITH RECURSIVE heads AS (SELECT 1 AS n, f.* FROM (SELECT record_key, consumer, id, state, next_attempt_at, \
    needs_type FROM parked WHERE blocks AND (record_key, consumer, id) > (coalesce($3, ''::bytea), '', 0) \
    ORDER BY record_key, consumer, id LIMIT 1) f \
    UNION ALL SELECT h.n + 1, f.* FROM heads h CROSS JOIN LATERAL (SELECT p.record_key, p.consumer, p.id, p.state, \
    p.next_attempt_at, p.needs_type FROM parked p WHERE p.blocks AND (p.record_key, p.consumer) > (h.record_key, h.consumer) \
    ORDER BY p.record_key, p.consumer, p.id LIMIT 1) f WHERE h.n < $4), \
    missed AS (UPDATE parked SET next_attempt_at = clock_timestamp() WHERE id = ANY(ARRAY(SELECT id FROM heads \
    WHERE consumer = $1 AND state = 'waiting' AND next_attempt_at IS NULL AND (needs_type IS NULL OR needs_type = ANY($2)))) \
    AND state || '' = 'waiting' AND next_attempt_at IS NULL RETURNING id) \
    SELECT (SELECT count(*) FROM missed), (SELECT record_key FROM heads WHERE n = $4)";

/// The lot, with its own connection for transactions, so that stream and lot cannot block each other.
#[derive(Debug)]
pub(super) struct PgLot {
    line: Line,
    claims: Pool,
}

impl PgLot {
    pub(super) fn new(session: Session) -> Self {
        Self { claims: Pool::new(&session.clone().lookups(), 1), line: Line::new(session) }
    }
}

#[async_trait]
impl Lot for PgLot {
    async fn oldest_held(&self, consumer: &str, types: &[String]) -> Result<Option<Duration>> {
        let query = sqlx::query(OLDEST_HELD).bind(consumer).bind(types);
        let age = async { self.claims.one(query).await?.maybe_double(0) };
        Ok(age.await.map_err(failed("lot.oldest_held", Lost::Nothing))?.map(seconds))
    }

    async fn claim(&self, consumer: &str, claim: &Claim<'_>) -> Result<Vec<Claimed>> {
        const OPERATION: &str = "lot.claim";
        let query = sqlx::query(CLAIM)
            .bind(consumer)
            .bind(claim.types)
            .bind(millis(claim.lease))
            .bind(i64::try_from(claim.limit).unwrap_or(i64::MAX))
            .bind(millis(LEASE_SPREAD));
        let rows = self.claims.all(query).await.map_err(failed(OPERATION, Lost::Commit))?;
        let read = |row: &PgRow| Ok::<_, sqlx::Error>(Claimed { abandoned: row.flag(15)?, ..columns::claimed(row)? });
        columns::all(OPERATION, &rows, read)
    }

    async fn next_due(&self, consumer: &str, types: &[String]) -> Result<Option<Duration>> {
        let query = sqlx::query(NEXT_DUE).bind(consumer).bind(types);
        let wait = async { self.claims.one(query).await?.maybe_double(0) };
        Ok(wait.await.map_err(failed("lot.next_due", Lost::Nothing))?.map(seconds))
    }

    async fn make_due(&self, consumer: &str, types: &[String], after: Option<&Bytes>) -> Result<MadeDue> {
        let query = sqlx::query(MAKE_DUE).bind(consumer).bind(types).bind(after.map(|key| &key[..])).bind(KEYS_AT_ONCE);
        let made = async {
            let row = self.claims.one(query).await?;
            let due = u64::try_from(row.long(0)?).unwrap_or_default();
            Ok(MadeDue { due, after: row.maybe_bytes(1)?.map(Bytes::copy_from_slice) })
        };
        made.await.map_err(failed("lot.make_due", Lost::Nothing))
    }

    async fn begin(&self, consumer: &str) -> Result<Box<dyn LotTx>> {
        Ok(Box::new(PgConsumerTx::new(self.line.begin("lot.begin").await?, consumer, true)))
    }
}

/// Converts an age or a wait; a negative one is zero.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
}
