//! Deletes old operations and audit rows.

use std::time::Duration;

use super::super::Result;
use super::super::database::{Arg, Statement};
use super::Operations;
use super::run::close;

// The time is a subquery of its own: computed for each row, it could not be searched by an index. Parameter 2 is negative.
static ITEMS: Statement = Statement::new(
    "DELETE FROM operation_item WHERE (operation_id, parked_id) IN (SELECT i.operation_id, i.parked_id FROM operation o \
     JOIN operation_item i ON i.operation_id = o.id WHERE o.ended_at < (SELECT @later1) \
     AND i.state NOT IN ('pending', 'released') ORDER BY o.ended_at LIMIT $3 @skip) RETURNING parked_id",
);

static OPERATIONS: Statement = Statement::new(
    "DELETE FROM operation WHERE id IN (SELECT o.id FROM operation o WHERE o.ended_at < (SELECT @later1) \
     AND NOT EXISTS (SELECT 1 FROM operation_item i WHERE i.operation_id = o.id) ORDER BY o.ended_at LIMIT $3 @skip) \
     RETURNING id",
);

static AUDIT: Statement = Statement::new(
    "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < (SELECT @later1) ORDER BY at LIMIT $3 @skip) RETURNING id",
);

impl Operations {
    /// Deletes at most `limit` rows of operations that ended longer than `age` ago by the database's clock, and audit rows of
    /// that age, oldest first; returns how many.
    ///
    /// An operation goes after its items, if need be over several calls. One that has not ended keeps its items.
    pub async fn forget(&self, age: Duration, limit: i64) -> Result<u64> {
        let mut work = self.0.begin("operations.forget").await?;
        let ago = Arg::Long(i64::try_from(age.as_secs()).map_or(i64::MIN, |seconds| -seconds));
        let mut gone = 0;
        for statement in [&ITEMS, &OPERATIONS, &AUDIT] {
            if gone < limit {
                let rows = work.run(statement, vec![Arg::Now, ago.clone(), Arg::Long(limit - gone)]).await?;
                gone += i64::try_from(rows.len()).unwrap_or(i64::MAX);
            }
        }
        close(work, gone > 0).await?;
        Ok(gone.unsigned_abs())
    }
}
