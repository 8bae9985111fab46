//! Outbox rows as columns: the first nine parameters of every statement that inserts events.

use std::collections::BTreeSet;

use minishop_core::ids::OrderId;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Postgres, Row};
use uuid::Uuid;

use super::super::NewEvent;

pub(super) type PgQuery<'q> = Query<'q, Postgres, PgArguments>;

/// Binds events as `$1::smallint[]` shard, `$2::uuid[]` event id, `$3::text[]` topic, `$4::bytea[]` record key,
/// `$5::uuid[]` order id, `$6::int[]` order version, `$7::bytea[]` payload, `$8::bytea[]` headers, `$9::text[]` trace. Brief
/// events have neither payload nor headers.
pub(super) fn bind<'q>(query: PgQuery<'q>, events: &[&NewEvent]) -> PgQuery<'q> {
    query
        .bind(column(events, |e| e.shard))
        .bind(column(events, |e| e.event_id.0))
        .bind(column(events, |e| &*e.topic))
        .bind(column(events, |e| &e.record_key[..]))
        .bind(column(events, |e| e.order_id.map(|id| id.0)))
        .bind(column(events, |e| e.order_version))
        .bind(column(events, |e| e.payload.as_deref().filter(|_| e.brief.is_none())))
        .bind(column(events, |e| e.brief.is_none().then_some(&e.headers[..])))
        .bind(column(events, |e| e.brief.as_ref().and_then(|brief| brief.trace.as_deref())))
}

/// Collects one column of a batch.
pub(super) fn column<'r, T, C>(rows: &'r [T], of: impl Fn(&'r T) -> C) -> Vec<C> {
    rows.iter().map(of).collect()
}

/// The places of events among those of their shards, from 1, for functions that return each shard's last number.
pub(super) struct Places {
    pub shards: Vec<i16>,
    pub of_events: Vec<i64>,
    /// Of each event, the index of its shard in `shards`.
    indices: Vec<usize>,
}

impl Places {
    /// Counts events, given by their shards.
    pub(super) fn of(shards_of_events: impl Iterator<Item = i16> + Clone) -> Self {
        let shards: BTreeSet<i16> = shards_of_events.clone().collect();
        let shards: Vec<i16> = shards.into_iter().collect();
        let mut counts = vec![0; shards.len()];
        let place = |shard: i16| {
            let index = shards.partition_point(|other| *other < shard);
            counts[index] += 1;
            (counts[index], index)
        };
        let (of_events, indices) = shards_of_events.map(place).unzip();
        Self { shards, of_events, indices }
    }

    /// Returns the events' numbers, from the last number of each shard before them.
    pub(super) fn numbers(&self, lasts: &[i64]) -> Vec<i64> {
        self.indices.iter().zip(&self.of_events).map(|(index, place)| lasts[*index] + place).collect()
    }
}

/// Reads the answer of a statement that inserts events: two arrays, order ids and outbox numbers.
pub(super) fn places(row: &PgRow) -> sqlx::Result<Vec<(OrderId, i64)>> {
    let orders: Vec<Uuid> = row.try_get(0)?;
    let numbers: Vec<i64> = row.try_get(1)?;
    Ok(orders.into_iter().map(OrderId).zip(numbers).collect())
}
