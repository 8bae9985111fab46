//! Old rows that nothing needs any more.

use std::time::Duration;

use async_trait::async_trait;

use super::Result;

/// Forgets old rows in small bites, so that nothing waits for it.
#[async_trait]
pub trait Housekeeping: Send + Sync + std::fmt::Debug {
    /// Deletes at most `limit` inbox rows of a consumer that were settled longer than `age` ago by the database's clock, oldest
    /// first, and returns how many.
    ///
    /// An event that stands in the lot keeps its row: until it is settled for good, a copy of it must be known as one. The same
    /// event read again after its row is gone would pass the gate, and find the fence of its order closed.
    async fn forget_settled(&self, consumer: &str, age: Duration, limit: i64) -> Result<u64>;
}
