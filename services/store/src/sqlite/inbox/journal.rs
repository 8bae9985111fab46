//! The step of a consumer transaction that records: parked events, dead letters, notes, duplicates, positions.

use std::sync::LazyLock;

use minishop_core::ids::{EventId, OrderId};
use minishop_core::parking::State;
use minishop_core::position::Position;
use sqlx::SqliteConnection;

use super::super::super::{Journal, NewEvent, Note, ParkedEvent};
use super::super::bulk::Bulk;
use super::super::{hex, outbox};

static PARK: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "INSERT INTO parked (consumer, record_key, blocks, state, event_id, order_id, client_id, type, needs_type, topic, \
         partition, source_offset, raw_key, raw_value, raw_headers, error_class, error_code, error_message, \
         error_fingerprint, next_attempt_at, first_failed_at, last_failed_at, parked_at)",
        "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        "ON CONFLICT (consumer, event_id) DO NOTHING",
    )
});

static NOTE: LazyLock<Bulk> =
    LazyLock::new(|| Bulk::new("INSERT INTO timeline (order_id, kind, at, cause, detail)", "(?, ?, ?, ?, ?)", ""));

const DUPLICATE: &str = "WITH d AS MATERIALIZED (SELECT unhex(value ->> 0) AS event_id, unhex(value ->> 1) AS order_id \
    FROM json_each(?2)) UPDATE inbox SET order_id = d.order_id FROM d \
    WHERE inbox.consumer = ?1 AND inbox.event_id IN (SELECT event_id FROM d) AND inbox.event_id = d.event_id";

const STOOD: &str = "SELECT topic, partition, next_offset FROM consumed WHERE consumer = ?1";

static POSITION: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "INSERT INTO consumed (consumer, topic, partition, next_offset)",
        "(?, ?, ?, ?)",
        "ON CONFLICT DO UPDATE SET next_offset = max(next_offset, excluded.next_offset)",
    )
});

/// Writes a journal; returns the outbox numbers of its events, or where the store is behind.
pub(super) async fn record(
    connection: &mut SqliteConnection,
    consumer: &str,
    journal: &Journal,
    now: i64,
) -> sqlx::Result<Result<Vec<i64>, Vec<Position>>> {
    park(connection, consumer, &journal.parked, now).await?;
    note(connection, &journal.notes).await?;
    if !journal.duplicates.is_empty() {
        let pair = |(event, order): &(EventId, OrderId)| vec![hex(event.0.as_bytes()), hex(order.0.as_bytes())];
        let rows: Vec<_> = journal.duplicates.iter().map(pair).collect();
        let query = sqlx::query(DUPLICATE).bind(consumer).bind(serde_json::Value::from(rows).to_string());
        query.execute(&mut *connection).await?;
    }
    let lower = gone_back(connection, consumer, journal).await?;
    if !lower.is_empty() {
        return Ok(Err(lower));
    }
    move_on(connection, consumer, &journal.positions).await?;
    let events: Vec<&NewEvent> = journal.events.iter().collect();
    outbox::append(connection, &events, now).await.map(Ok)
}

async fn park(connection: &mut SqliteConnection, consumer: &str, parked: &[ParkedEvent], now: i64) -> sqlx::Result<()> {
    for (sql, rows) in PARK.chunks(parked) {
        let mut query = sqlx::query(sql);
        for event in rows {
            let failed_at = event.failed_at.map(|at| at.timestamp_millis());
            query = query
                .bind(consumer)
                .bind(&event.record_key[..])
                .bind(event.blocks)
                .bind(event.state.as_str())
                .bind(event.event_id.0)
                .bind(event.order_id.map(|id| id.0))
                .bind(event.client_id.as_ref().map(|id| id.0.as_str()))
                .bind(event.event_type.as_deref())
                .bind(event.needs_type.as_deref())
                .bind(&event.topic)
                .bind(event.partition)
                .bind(event.offset)
                .bind(event.raw_key.as_deref())
                .bind(event.raw_value.as_deref())
                .bind(&event.raw_headers[..])
                .bind(event.error_class)
                .bind(event.error_code)
                .bind(event.error_message.as_deref())
                .bind(event.error_fingerprint.as_ref().map(|digest| &digest[..]))
                .bind((event.state == State::Retrying).then_some(now))
                .bind(failed_at)
                .bind(failed_at)
                .bind(now);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

pub(in super::super) async fn note(connection: &mut SqliteConnection, notes: &[Note]) -> sqlx::Result<()> {
    for (sql, rows) in NOTE.chunks(notes) {
        let mut query = sqlx::query(sql);
        for note in rows {
            query = query
                .bind(note.order_id.0)
                .bind(note.kind.as_str())
                .bind(note.at.timestamp_millis())
                .bind(note.cause.0)
                .bind(note.detail.as_deref());
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Finds the partitions in which the store is behind what the consumer has seen.
async fn gone_back(connection: &mut SqliteConnection, consumer: &str, journal: &Journal) -> sqlx::Result<Vec<Position>> {
    if journal.seen.is_empty() {
        return Ok(Vec::new());
    }
    let stood: Vec<(String, i32, i64)> = sqlx::query_as(STOOD).bind(consumer).fetch_all(connection).await?;
    let at = |p: &Position| stood.iter().find(|(topic, n, _)| *n == p.partition && *topic == p.topic).map_or(0, |(.., at)| *at);
    let lower = journal.positions.iter().filter(|p| at(p) < journal.seen_at(p));
    Ok(lower.map(|p| Position { next_offset: at(p), ..p.clone() }).collect())
}

async fn move_on(connection: &mut SqliteConnection, consumer: &str, positions: &[Position]) -> sqlx::Result<()> {
    for (sql, rows) in POSITION.chunks(positions) {
        let mut query = sqlx::query(sql);
        for position in rows {
            query = query.bind(consumer).bind(&position.topic).bind(position.partition).bind(position.next_offset);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}
