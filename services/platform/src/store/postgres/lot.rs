//! The parking lot in PostgreSQL, as operators read it.

use std::collections::HashMap;

use async_trait::async_trait;
use minishop_core::parking::State;

use super::super::{DeadLetter, Lot, Result, columns};
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
        columns::all(OPERATION, &rows, columns::dead_letter)
    }

    async fn counts(&self) -> Result<HashMap<State, i64>> {
        let query = sqlx::query_as(COUNTS);
        let rows: Vec<(String, i64)> = query.fetch_all(&self.reads).await.map_err(failed("lot.counts", Lost::Nothing))?;
        Ok(rows.into_iter().filter_map(|(state, count)| Some((State::parse(&state)?, count))).collect())
    }
}
