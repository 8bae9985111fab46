//! Deletion of rows that nothing needs any more.

use std::time::Duration;

use async_trait::async_trait;

use super::Result;

/// Deletes old rows in small batches, so that nothing waits for it.
#[async_trait]
pub trait Housekeeping: Send + Sync + std::fmt::Debug {
    /// Deletes at most `limit` inbox rows of a consumer that were settled longer than `age` ago by the database's clock, oldest
    /// first, and returns how many.
    ///
    /// A parked event keeps its row: until it leaves the lot, a copy must be recognized as one. After its row is deleted, a copy
    /// passes the gate and fails at the fence of its order.
    async fn forget_settled(&self, consumer: &str, age: Duration, limit: i64) -> Result<u64>;
}
