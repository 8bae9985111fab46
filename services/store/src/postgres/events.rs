//! Outbox rows as columns: the first eight parameters of every statement that inserts events.

use minishop_core::ids::OrderId;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Postgres, Row};
use uuid::Uuid;

use super::super::NewEvent;

pub(super) type PgQuery<'q> = Query<'q, Postgres, PgArguments>;

/// Binds events as `$1::smallint[]` shard, `$2::uuid[]` event id, `$3::text[]` topic, `$4::bytea[]` record key,
/// `$5::uuid[]` order id, `$6::int[]` order version, `$7::bytea[]` payload, `$8::bytea[]` headers.
pub(super) fn bind<'q>(query: PgQuery<'q>, events: &[&NewEvent]) -> PgQuery<'q> {
    query
        .bind(column(events, |e| e.shard))
        .bind(column(events, |e| e.event_id.0))
        .bind(column(events, |e| &*e.topic))
        .bind(column(events, |e| &e.record_key[..]))
        .bind(column(events, |e| e.order_id.map(|id| id.0)))
        .bind(column(events, |e| e.order_version))
        .bind(column(events, |e| e.payload.as_deref()))
        .bind(column(events, |e| &e.headers[..]))
}

/// Collects one column of a batch.
pub(super) fn column<'r, T, C>(rows: &'r [T], of: impl Fn(&'r T) -> C) -> Vec<C> {
    rows.iter().map(of).collect()
}

/// Reads the answer of a statement that inserts events: two arrays, order ids and outbox numbers.
pub(super) fn places(row: &PgRow) -> sqlx::Result<Vec<(OrderId, i64)>> {
    let orders: Vec<Uuid> = row.try_get(0)?;
    let numbers: Vec<i64> = row.try_get(1)?;
    Ok(orders.into_iter().map(OrderId).zip(numbers).collect())
}
