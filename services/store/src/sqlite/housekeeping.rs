//! Housekeeping in SQLite: a unit of the one writer, small enough that others hardly wait.

use std::time::Duration;

use async_trait::async_trait;

use super::super::{Housekeeping, Result};
use super::Db;

const SETTLED: &str = "DELETE FROM inbox WHERE consumer = ?1 AND event_id IN (SELECT i.event_id FROM inbox i \
    WHERE i.consumer = ?1 AND i.settled_at < ?2 \
    AND NOT EXISTS (SELECT 1 FROM parked p WHERE p.consumer = i.consumer AND p.event_id = i.event_id) \
    ORDER BY i.settled_at LIMIT ?3)";

#[async_trait]
impl Housekeeping for Db {
    async fn forget_settled(&self, consumer: &str, age: Duration, limit: i64) -> Result<u64> {
        const OPERATION: &str = "housekeeping.settled";
        let before = self.now().saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        let query = sqlx::query(SETTLED).bind(consumer).bind(before).bind(limit);
        let done = self.writer.write(OPERATION, async |connection| query.execute(connection).await).await?;
        Ok(done.rows_affected())
    }
}
