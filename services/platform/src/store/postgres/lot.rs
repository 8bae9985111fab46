//! The parking lot in PostgreSQL: how a worker takes it up.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use minishop_core::parking::State;
use sqlx::postgres::PgRow;

use super::super::columns::{self, Columns};
use super::super::{Claim, Claimed, LEASE_SPREAD, Lot, LotSettlement, Result};
use super::error::{Lost, failed};
use super::inbox::{Line, millis};
use super::pool::Pool;
use super::session::Session;

const COUNTS: &str = "SELECT state, count(*) FROM parked GROUP BY state";

const OLDEST_HELD: &str = "SELECT extract(epoch FROM clock_timestamp() - min(parked_at))::float8 FROM parked \
    WHERE consumer = $1 AND needs_type IS NOT NULL AND NOT needs_type = ANY($2)";

// The clock is read once, in a query of its own: read for each row, no index could find what is due. Whoever else claims or
// settles one of these rows at this moment has it locked, and only heads qualify, so skipping them leaves no gap in a key.
// The leases of one claim end one after the other, see `LEASE_SPREAD`.
const CLAIM: &str = concat!(
    "WITH due AS MATERIALIZED (SELECT h.id AS row_id, h.leased_until IS NOT NULL AS abandoned, random() AS late FROM parked h \
     WHERE h.consumer = $1 AND h.state <> 'dead' AND h.next_attempt_at <= (SELECT clock_timestamp()) \
     AND (h.leased_until IS NULL OR h.leased_until <= (SELECT clock_timestamp())) \
     AND (h.needs_type IS NULL OR h.needs_type = ANY($2)) \
     AND (NOT h.blocks OR NOT EXISTS (SELECT 1 FROM parked e \
     WHERE e.consumer = h.consumer AND e.record_key = h.record_key AND e.blocks AND e.id < h.id)) \
     ORDER BY h.next_attempt_at LIMIT $4 FOR UPDATE OF h SKIP LOCKED), \
     until AS MATERIALIZED (SELECT row_id, abandoned, \
     clock_timestamp() + ($3::float8 + late * $5::float8) * interval '1 millisecond' AS at FROM due) \
     UPDATE parked SET state = 'retrying', attempts = attempts + 1, lease_epoch = lease_epoch + 1, \
     leased_until = until.at, next_attempt_at = until.at FROM until WHERE id = row_id RETURNING ",
    columns::claimed_columns!(),
    ", abandoned"
);

const NEXT_DUE: &str = "SELECT extract(epoch FROM min(next_attempt_at) - clock_timestamp())::float8 FROM parked \
    WHERE consumer = $1 AND state <> 'dead' AND (needs_type IS NULL OR needs_type = ANY($2))";

// Only what waits as its key's head can have been missed, and heads are found by the index alone.
const MEND: &str = "UPDATE parked SET next_attempt_at = clock_timestamp() \
    WHERE id IN (SELECT min(id) FROM parked WHERE consumer = $1 AND blocks GROUP BY record_key) \
    AND state = 'waiting' AND next_attempt_at IS NULL AND (needs_type IS NULL OR needs_type = ANY($2))";

/// The lot, with a connection of its own for transactions, so that stream and lot cannot hold each other up.
#[derive(Debug)]
pub(super) struct PgLot {
    line: Line,
    claims: Pool,
    reads: Pool,
}

impl PgLot {
    pub(super) fn new(session: Session, reads: Pool) -> Self {
        Self { claims: Pool::new(&session, 1), line: Line::new(session, true), reads }
    }
}

#[async_trait]
impl Lot for PgLot {
    async fn counts(&self) -> Result<HashMap<State, i64>> {
        const OPERATION: &str = "lot.counts";
        let rows = self.reads.all(sqlx::query(COUNTS)).await.map_err(failed(OPERATION, Lost::Nothing))?;
        Ok(columns::all(OPERATION, &rows, columns::count)?.into_iter().flatten().collect())
    }

    async fn oldest_held(&self, consumer: &str, types: &[String]) -> Result<Option<Duration>> {
        let query = sqlx::query(OLDEST_HELD).bind(consumer).bind(types);
        let age = async { self.reads.one(query).await?.maybe_double(0) };
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

    async fn mend(&self, consumer: &str, types: &[String]) -> Result<u64> {
        let query = sqlx::query(MEND).bind(consumer).bind(types);
        self.claims.execute(query).await.map_err(failed("lot.mend", Lost::Nothing))
    }

    async fn begin(&self, consumer: &str) -> Result<Box<dyn LotSettlement>> {
        Ok(Box::new(self.line.begin("lot.begin", consumer).await?))
    }
}

/// Reads an age or a wait; one that lies on the other side of now is none.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
}
