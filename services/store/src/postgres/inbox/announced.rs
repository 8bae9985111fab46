//! A batch of events that find everything as announced, in one statement: the function `settle_announced` (migration 13).

use sqlx::PgConnection;

use super::super::super::AnnouncedBatch;
use super::super::error::{UNIQUE_VIOLATION, has_code};
use super::super::events::{Places, column};

const SETTLE: &str = "SELECT settle_announced($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, \
    $19, $20, $21)";

/// The SQLSTATEs of `settle_announced` if anything is not as announced: an event was settled before, or something else.
const DIFFERS: [&str; 2] = [UNIQUE_VIOLATION, "MS002"];

/// Settles a batch; returns the outbox numbers of its events, or `None` if anything is not as announced.
pub(super) async fn settle(
    connection: &mut PgConnection,
    consumer: &str,
    batch: &AnnouncedBatch<'_>,
) -> sqlx::Result<Option<Vec<i64>>> {
    let events = &batch.events;
    let Some(first) = events.first().map(|event| event.transition) else { return Ok(Some(Vec::new())) };
    // The statement writes brief rows.
    if events.iter().any(|e| e.transition.event.brief.is_none()) {
        return Ok(None);
    }
    let places = Places::of(events.iter().map(|event| event.transition.event.shard));
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
        .bind(&places.of_events)
        .bind(column(events, |e| e.transition.event.event_id.0))
        .bind(column(events, |e| &e.transition.event.record_key[..]))
        .bind(column(events, |e| e.transition.event.brief.as_ref().and_then(|brief| brief.trace.as_deref())))
        .bind(first.to.as_str())
        .bind(first.at)
        .bind(&first.event.topic)
        .bind(&places.shards)
        .bind(column(batch.positions, |p| &*p.topic))
        .bind(column(batch.positions, |p| p.partition))
        .bind(column(batch.positions, |p| p.next_offset))
        .bind(column(batch.positions, |p| batch.seen_at(p)));
    let lasts = match query.fetch_one(connection).await {
        Err(error) if DIFFERS.iter().any(|code| has_code(&error, code)) => {
            tracing::debug!(error = %error, "a batch is not as announced");
            return Ok(None);
        }
        lasts => lasts?,
    };
    Ok(Some(places.numbers(&lasts)))
}
