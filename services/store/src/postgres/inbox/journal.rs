//! The step of a consumer transaction that records: parked events, dead letters, notes, duplicates, positions.

use std::borrow::Cow;

use minishop_core::parking::State;
use minishop_core::position::Position;
use sqlx::PgConnection;

use super::super::super::{Journal, NewEvent, Note, ParkedEvent};
use super::super::events::column;
use super::super::outbox;

// A key's events are handled in the order of these ids, so the ids are given in the order of the batch.
const PARK: &str = "INSERT INTO parked (consumer, record_key, blocks, state, event_id, order_id, client_id, type, needs_type, \
    topic, partition, source_offset, raw_key, raw_value, raw_headers, error_class, error_code, error_message, \
    error_fingerprint, next_attempt_at, first_failed_at, last_failed_at) \
    SELECT $1, record_key, blocks, state, event_id, order_id, client_id, type, needs_type, topic, partition, source_offset, \
    raw_key, raw_value, raw_headers, error_class, error_code, error_message, error_fingerprint, \
    CASE WHEN due THEN clock_timestamp() END, failed_at, failed_at \
    FROM UNNEST($2::bytea[], $3::boolean[], $4::text[], $5::uuid[], $6::uuid[], $7::text[], $8::text[], $9::text[], \
    $10::text[], $11::int[], $12::bigint[], $13::bytea[], $14::bytea[], $15::bytea[], $16::text[], $17::text[], $18::text[], \
    $19::bytea[], $20::boolean[], $21::timestamptz[]) WITH ORDINALITY AS t(record_key, blocks, state, event_id, order_id, \
    client_id, type, needs_type, topic, partition, source_offset, raw_key, raw_value, raw_headers, error_class, error_code, \
    error_message, error_fingerprint, due, failed_at, n) ORDER BY n ON CONFLICT (consumer, event_id) DO NOTHING";

const NOTES: &str = "INSERT INTO timeline (order_id, kind, at, cause, detail) \
    SELECT order_id, kind, at, cause, detail::jsonb FROM UNNEST($1::uuid[], $2::text[], $3::timestamptz[], $4::uuid[], \
    $5::text[]) WITH ORDINALITY AS t(order_id, kind, at, cause, detail, n) ORDER BY n";

const DUPLICATES: &str = "UPDATE inbox i SET order_id = d.order_id FROM UNNEST($2::uuid[], $3::uuid[]) d(event_id, order_id) \
    WHERE i.consumer = $1 AND i.event_id = d.event_id";

// Returns where the store is behind what the consumer has seen. The rows are locked in one order, and before any is written: the
// sort behind the join needs all of them.
const POSITIONS: &str = "WITH t AS (SELECT * FROM UNNEST($2::text[], $3::int[], $4::bigint[], $5::bigint[]) \
    AS t(topic, partition, next_offset, seen)), \
    stood AS MATERIALIZED (SELECT c.topic, c.partition, c.next_offset FROM consumed c WHERE c.consumer = $1 \
    AND (c.topic, c.partition) IN (SELECT topic, partition FROM t) ORDER BY c.topic, c.partition FOR NO KEY UPDATE), \
    moved AS (INSERT INTO consumed (consumer, topic, partition, next_offset) \
    SELECT $1, t.topic, t.partition, GREATEST(t.next_offset, s.next_offset) \
    FROM t LEFT JOIN stood s ON s.topic = t.topic AND s.partition = t.partition ORDER BY t.topic, t.partition \
    ON CONFLICT (consumer, topic, partition) DO UPDATE SET next_offset = GREATEST(consumed.next_offset, excluded.next_offset)) \
    SELECT t.topic, t.partition, coalesce(s.next_offset, 0) FROM t LEFT JOIN stood s ON s.topic = t.topic \
    AND s.partition = t.partition WHERE coalesce(s.next_offset, 0) < t.seen";

/// Writes a journal; returns the outbox numbers of its events, or where the store is behind.
pub(super) async fn record(
    connection: &mut PgConnection,
    consumer: &str,
    journal: &Journal,
) -> sqlx::Result<Result<Vec<i64>, Vec<Position>>> {
    if !journal.parked.is_empty() {
        park(connection, consumer, &journal.parked).await?;
    }
    if !journal.notes.is_empty() {
        note(connection, &journal.notes).await?;
    }
    if !journal.duplicates.is_empty() {
        let query = sqlx::query(DUPLICATES)
            .bind(consumer)
            .bind(column(&journal.duplicates, |(event, _)| event.0))
            .bind(column(&journal.duplicates, |(_, order)| order.0));
        query.execute(&mut *connection).await?;
    }
    if !journal.positions.is_empty() {
        let lower = move_on(connection, consumer, journal).await?;
        if !lower.is_empty() {
            return Ok(Err(lower));
        }
    }
    if journal.events.is_empty() {
        return Ok(Ok(Vec::new()));
    }
    outbox::append(connection, &journal.events.iter().collect::<Vec<&NewEvent>>()).await.map(Ok)
}

async fn park(connection: &mut PgConnection, consumer: &str, parked: &[ParkedEvent]) -> sqlx::Result<()> {
    let query = sqlx::query(PARK)
        .bind(consumer)
        .bind(column(parked, |p| &p.record_key[..]))
        .bind(column(parked, |p| p.blocks))
        .bind(column(parked, |p| p.state.as_str()))
        .bind(column(parked, |p| p.event_id.0))
        .bind(column(parked, |p| p.order_id.map(|id| id.0)))
        .bind(column(parked, |p| p.client_id.as_ref().map(|id| storable(&id.0))))
        .bind(column(parked, |p| p.event_type.as_deref().map(storable)))
        .bind(column(parked, |p| p.needs_type.as_deref().map(storable)))
        .bind(column(parked, |p| &*p.topic))
        .bind(column(parked, |p| p.partition))
        .bind(column(parked, |p| p.offset))
        .bind(column(parked, |p| p.raw_key.as_deref()))
        .bind(column(parked, |p| p.raw_value.as_deref()))
        .bind(column(parked, |p| &p.raw_headers[..]))
        .bind(column(parked, |p| p.error_class))
        .bind(column(parked, |p| p.error_code))
        .bind(column(parked, |p| p.error_message.as_deref().map(storable)))
        .bind(column(parked, |p| p.error_fingerprint.as_ref().map(|digest| &digest[..])))
        .bind(column(parked, |p| p.state == State::Retrying))
        .bind(column(parked, |p| p.failed_at));
    query.execute(connection).await.map(drop)
}

/// Replaces U+0000, which PostgreSQL's text cannot hold: what foreign producers write must not stop the consumer. The raw columns
/// keep the original bytes.
pub(super) fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

pub(in super::super) async fn note(connection: &mut PgConnection, notes: &[Note]) -> sqlx::Result<()> {
    let query = sqlx::query(NOTES)
        .bind(column(notes, |n| n.order_id.0))
        .bind(column(notes, |n| n.kind.as_str()))
        .bind(column(notes, |n| n.at))
        .bind(column(notes, |n| n.cause.0))
        .bind(column(notes, |n| n.detail.as_deref()));
    query.execute(connection).await.map(drop)
}

/// Stores the positions of a batch; returns where the store is behind what the consumer has seen.
async fn move_on(connection: &mut PgConnection, consumer: &str, journal: &Journal) -> sqlx::Result<Vec<Position>> {
    let query = sqlx::query_as(POSITIONS)
        .bind(consumer)
        .bind(column(&journal.positions, |p| &*p.topic))
        .bind(column(&journal.positions, |p| p.partition))
        .bind(column(&journal.positions, |p| p.next_offset))
        .bind(column(&journal.positions, |p| journal.seen_at(p)));
    let lower: Vec<(String, i32, i64)> = query.fetch_all(connection).await?;
    Ok(lower.into_iter().map(|(topic, partition, next_offset)| Position { topic, partition, next_offset }).collect())
}
