//! Housekeeping in PostgreSQL. Several workers may run it at once: each skips rows that another is deleting.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::types::PgInterval;

use super::super::{Housekeeping, Result};
use super::Db;
use super::error::{Lost, failed};

// `statement_timestamp()`, since an index cannot be searched by the volatile `clock_timestamp()`.
const SETTLED: &str = "WITH old AS (SELECT event_id FROM inbox i \
    WHERE i.consumer = $1 AND i.settled_at < statement_timestamp() - $2::interval \
    AND NOT EXISTS (SELECT FROM parked p WHERE p.consumer = i.consumer AND p.event_id = i.event_id) \
    ORDER BY i.settled_at LIMIT $3 FOR UPDATE SKIP LOCKED) \
    DELETE FROM inbox d USING old WHERE d.consumer = $1 AND d.event_id = old.event_id";

#[async_trait]
impl Housekeeping for Db {
    async fn forget_settled(&self, consumer: &str, age: Duration, limit: i64) -> Result<u64> {
        let microseconds = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
        let query = sqlx::query(SETTLED).bind(consumer).bind(PgInterval { months: 0, days: 0, microseconds }).bind(limit);
        self.housekeeping.execute(query).await.map_err(failed("housekeeping.settled", Lost::Commit))
    }
}
