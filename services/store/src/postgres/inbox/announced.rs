//! A batch of events that find everything as announced, in one statement: the function `settle_announced` (migration 11).

use std::collections::BTreeMap;

use sqlx::PgConnection;

use super::super::super::AnnouncedBatch;
use super::super::error::has_code;
use super::super::events::column;

const SETTLE: &str = "SELECT settle_announced($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, \
    $19, $20, $21, $22)";

/// The SQLSTATE of `settle_announced` if anything is not as announced.
const DIFFERS: &str = "MS002";

/// Settles a batch; returns the outbox numbers of its events, or `None` if anything is not as announced.
pub(super) async fn settle(
    connection: &mut PgConnection,
    consumer: &str,
    batch: &AnnouncedBatch<'_>,
) -> sqlx::Result<Option<Vec<i64>>> {
    let events = &batch.events;
    let Some(first) = events.first().map(|event| event.transition) else { return Ok(Some(Vec::new())) };
    // How many events each shard gets, and the place of each event among those of its shard.
    let mut counts: BTreeMap<i16, i64> = BTreeMap::new();
    let mut places = Vec::with_capacity(events.len());
    for event in events {
        let count = counts.entry(event.transition.event.shard).or_default();
        *count += 1;
        places.push(*count);
    }
    let shards: Vec<i16> = counts.into_keys().collect();
    let query = sqlx::query_scalar::<_, Vec<i64>>(SETTLE)
        .bind(consumer)
        .bind(column(events, |e| e.transition.cause.0))
        .bind(column(events, |e| &e.data_sha[..]))
        .bind(column(events, |e| e.record_key))
        .bind(column(events, |e| e.transition.order_id.0))
        .bind(column(events, |e| &*e.client_id.0))
        .bind(column(events, |e| &e.fingerprint.0[..]))
        .bind(column(events, |e| e.transition.expected_version))
        .bind(column(events, |e| e.transition.event.shard))
        .bind(&places)
        .bind(column(events, |e| e.transition.event.event_id.0))
        .bind(column(events, |e| &e.transition.event.record_key[..]))
        .bind(column(events, |e| e.transition.event.payload.as_deref()))
        .bind(column(events, |e| &e.transition.event.headers[..]))
        .bind(first.to.as_str())
        .bind(first.at)
        .bind(&first.event.topic)
        .bind(&shards)
        .bind(column(batch.positions, |p| &*p.topic))
        .bind(column(batch.positions, |p| p.partition))
        .bind(column(batch.positions, |p| p.next_offset))
        .bind(column(batch.positions, |p| batch.seen_at(p)));
    let lasts = match query.fetch_one(connection).await {
        Err(error) if has_code(&error, DIFFERS) => {
            tracing::debug!(error = %error, "a batch is not as announced");
            return Ok(None);
        }
        lasts => lasts?,
    };
    let last: BTreeMap<i16, i64> = shards.into_iter().zip(lasts).collect();
    Ok(Some(events.iter().zip(places).map(|(e, place)| last[&e.transition.event.shard] + place).collect()))
}
