//! The parking lot in PostgreSQL, as operators read it.

use std::collections::HashMap;

use async_trait::async_trait;
use minishop_core::ids::{EventId, OrderId};
use minishop_core::parking::State;
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::super::{DeadLetter, Lot, Result, StoreError};
use super::Db;
use super::error::{Lost, failed};

const DEAD: &str = "SELECT id, event_id, order_id, type, topic, partition, source_offset, coalesce(error_class, ''), \
    coalesce(error_code, ''), coalesce(error_message, ''), attempts, coalesce(first_failed_at, parked_at), \
    coalesce(last_failed_at, parked_at) FROM parked WHERE state = 'dead' AND id < $1 ORDER BY id DESC LIMIT $2";

const COUNTS: &str = "SELECT state, count(*) FROM parked GROUP BY state";

#[async_trait]
impl Lot for Db {
    async fn dead_letters(&self, before: Option<i64>, limit: i64) -> Result<Vec<DeadLetter>> {
        const OPERATION: &str = "lot.dead_letters";
        let query = sqlx::query(DEAD).bind(before.unwrap_or(i64::MAX)).bind(limit);
        let rows = query.fetch_all(&self.reads).await.map_err(failed(OPERATION, Lost::Nothing))?;
        rows.iter().map(|row| read(row).map_err(|error| StoreError::unreadable(OPERATION, error))).collect()
    }

    async fn counts(&self) -> Result<HashMap<State, i64>> {
        let query = sqlx::query_as(COUNTS);
        let rows: Vec<(String, i64)> = query.fetch_all(&self.reads).await.map_err(failed("lot.counts", Lost::Nothing))?;
        Ok(rows.into_iter().filter_map(|(state, count)| Some((State::parse(&state)?, count))).collect())
    }
}

fn read(row: &PgRow) -> sqlx::Result<DeadLetter> {
    Ok(DeadLetter {
        id: row.try_get(0)?,
        event_id: EventId(row.try_get(1)?),
        order_id: row.try_get::<Option<Uuid>, _>(2)?.map(OrderId),
        event_type: row.try_get(3)?,
        position: (row.try_get(4)?, row.try_get(5)?, row.try_get(6)?),
        error_class: row.try_get(7)?,
        error_code: row.try_get(8)?,
        error_message: row.try_get(9)?,
        attempts: row.try_get(10)?,
        first_failed_at: row.try_get(11)?,
        last_failed_at: row.try_get(12)?,
    })
}
