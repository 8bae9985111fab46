//! Orders in PostgreSQL: acceptance in one statement, and reads of many orders.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use minishop_core::idempotency::IdempotencyKey;
use minishop_core::ids::{ClientId, OrderId};
use minishop_core::misses::Misses;
use sqlx::PgConnection;

use super::super::columns::{self, Columns as _};
use super::super::{Cancels, Changed, Intake, KeyRecord, NewEvent, NewOrder, Orders, Result, StoreError};
use super::Db;
use super::accept_new;
use super::cancel::PgCancels;
use super::error::{Lost, failed, is_contention, is_full};
use super::events::{self, column};
use super::session::{Kept, SILENCE};

/// How often a batch is run if the server rolls it back because of concurrent transactions.
const TRIES: u32 = 4;

// `ORDER BY n` is the caller's order by (client, key), so that writers lock the unique index in one order and cannot deadlock. A
// row that is skipped because another transaction has just committed its key is missing in the answer. The shards are locked
// after the orders are inserted: the argument of `outbox_last` depends on them.
const ACCEPT: &str = "WITH input AS (SELECT * FROM UNNEST($1::smallint[], $2::uuid[], $3::text[], $4::bytea[], $5::uuid[], \
    $6::int[], $7::bytea[], $8::bytea[], $9::text[], $10::text[], $11::text[], $12::bytea[], $13::text[], $14::text[], \
    $15::bigint[], $16::text[], $17::text[], $18::text[], $19::timestamptz[]) WITH ORDINALITY AS t(shard, event_id, topic, \
    record_key, order_id, order_version, payload, headers, trace, client_id, idempotency_key, fingerprint, customer_id, \
    currency, total_minor, items, correlation_id, traceparent, created_at, n)), \
    made AS (INSERT INTO orders (order_id, client_id, idempotency_key, fingerprint, customer_id, status, version, currency, \
    total_minor, items, correlation_id, traceparent, created_event_id, created_at) \
    SELECT order_id, client_id, idempotency_key, fingerprint, customer_id, 'created', 1, currency, total_minor, items, \
    correlation_id, traceparent, event_id, created_at FROM input ORDER BY n \
    ON CONFLICT (client_id, idempotency_key) DO NOTHING RETURNING order_id), \
    numbered AS (SELECT i.n, i.shard, row_number() OVER (PARTITION BY i.shard ORDER BY i.n) AS place \
    FROM input i JOIN made USING (order_id)), \
    given AS MATERIALIZED (SELECT unnest(w.shards) AS shard, unnest(outbox_last(w.shards)) AS last \
    FROM (SELECT array_agg(DISTINCT shard ORDER BY shard) AS shards FROM numbered) w), \
    queued AS (INSERT INTO outbox_event (shard, number, event_id, topic, record_key, order_id, order_version, payload, headers, \
    trace) SELECT i.shard, g.last + p.place, i.event_id, i.topic, i.record_key, i.order_id, i.order_version, i.payload, \
    i.headers, i.trace FROM input i JOIN numbered p USING (n) JOIN given g ON g.shard = i.shard RETURNING order_id, number) \
    SELECT coalesce(array_agg(order_id), '{}'), coalesce(array_agg(number), '{}') FROM queued";

// One look-up for each key: no plan can turn a subquery with a limit into a join over all orders.
const BY_KEYS: &str = "SELECT o.client_id, o.idempotency_key, o.order_id, o.fingerprint, o.total_minor, o.currency \
    FROM UNNEST($1::text[], $2::text[]) k(client_id, idempotency_key) CROSS JOIN LATERAL (SELECT * FROM orders f \
    WHERE f.client_id = k.client_id AND f.idempotency_key = k.idempotency_key LIMIT 1) o";

// The index on (order, version) finds the timeline row of the change.
const CHANGED: &str = concat!(
    "SELECT ",
    columns::order_columns!(),
    ", t.at FROM UNNEST($1::uuid[], $2::int[]) k(order_id, version) \
     CROSS JOIN LATERAL (SELECT * FROM orders f WHERE f.order_id = k.order_id AND f.version > k.version LIMIT 1) o \
     LEFT JOIN LATERAL (SELECT * FROM timeline l WHERE l.order_id = o.order_id AND l.version = o.version LIMIT 1) t ON true"
);

// A real write that leaves nothing behind: a message in the WAL, whose commit waits for the disk like an order's.
const PING: &str = "SELECT CASE WHEN pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on' THEN false \
    ELSE pg_logical_emit_message(true, 'minishop', 'ping') IS NOT NULL END";

// Takes space where the orders' tables are, and is rolled back. Without that privilege, only the next order finds out.
const FIND_ROOM: &str =
    "SET LOCAL temp_tablespaces = ''; CREATE TEMPORARY TABLE minishop_room AS SELECT repeat('room', 1000) AS r";

/// One connection that accepts orders, replaced after it is lost.
struct PgIntake {
    kept: Kept,
    full: Full,
    misses: Misses,
}

/// Whether the server's disk was full at the last order. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Full(Arc<AtomicBool>);

impl Full {
    fn is(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, full: bool) {
        self.0.store(full, Ordering::Relaxed);
    }
}

#[async_trait]
impl Intake for PgIntake {
    async fn accept(&mut self, batch: &[NewOrder]) -> Result<HashMap<OrderId, i64>> {
        const OPERATION: &str = "orders.accept";
        let mut connection = self.kept.take(OPERATION).await?;
        let mut tries = 1;
        let outcome = loop {
            match tokio::time::timeout(SILENCE, accept(&mut connection, batch, &self.misses)).await {
                Err(_) => break Err(silent(OPERATION)),
                Ok(Err(error)) if tries < TRIES && is_contention(&error) => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_micros(rand::random_range(500..10_000))).await;
                }
                Ok(made) => {
                    match &made {
                        Ok(_) => self.full.set(false),
                        Err(error) if is_full(error) => self.full.set(true),
                        Err(_) => {}
                    }
                    break made.map_err(failed(OPERATION, Lost::Commit));
                }
            }
        };
        // After any other error than the batch's own fault or a lock timeout, the connection's state is in doubt.
        if matches!(&outcome, Ok(_) | Err(StoreError::Fail { .. })) || outcome.as_ref().is_err_and(StoreError::is_contended) {
            self.kept.keep(connection);
        }
        outcome
    }
}

fn silent(operation: &'static str) -> StoreError {
    StoreError::Unknown { operation, source: anyhow::anyhow!("no answer within {SILENCE:?}") }
}

/// Accepts a batch, by the shorter statement as long as keys are new.
async fn accept(connection: &mut PgConnection, batch: &[NewOrder], misses: &Misses) -> sqlx::Result<HashMap<OrderId, i64>> {
    if accept_new::takes(batch) && misses.allow() {
        let made = accept_new::run(connection, batch).await?;
        misses.note(made.is_none());
        if let Some(made) = made {
            return Ok(made);
        }
    }
    accept_any(connection, batch).await
}

async fn accept_any(connection: &mut PgConnection, batch: &[NewOrder]) -> sqlx::Result<HashMap<OrderId, i64>> {
    let announced: Vec<NewEvent>;
    // The event's order id is the join key, so it must be set.
    let events: Vec<&NewEvent> = if batch.iter().all(|order| order.event.order_id == Some(order.head.order_id)) {
        column(batch, |order| &order.event)
    } else {
        announced = batch.iter().map(|o| NewEvent { order_id: Some(o.head.order_id), ..o.event.clone() }).collect();
        announced.iter().collect()
    };
    let row = events::bind(sqlx::query(ACCEPT), &events)
        .bind(column(batch, |o| &*o.head.client_id.0))
        .bind(column(batch, |o| o.head.key.as_str()))
        .bind(column(batch, |o| &o.fingerprint.0[..]))
        .bind(column(batch, |o| &*o.head.customer_id))
        .bind(column(batch, |o| o.head.currency.as_deref()))
        .bind(column(batch, |o| o.head.total_minor))
        .bind(column(batch, |o| &*o.items))
        .bind(column(batch, |o| o.head.correlation_id.as_str()))
        .bind(column(batch, |o| o.traceparent.as_deref()))
        .bind(column(batch, |o| o.head.created_at))
        .fetch_one(connection)
        .await?;
    Ok(events::places(&row)?.into_iter().collect())
}

#[async_trait]
impl Orders for Db {
    async fn intake(&self) -> Result<Box<dyn Intake>> {
        Ok(Box::new(PgIntake {
            kept: Kept::connect(self.intake.clone(), "orders.intake").await?,
            full: self.full.clone(),
            misses: Misses::default(),
        }))
    }

    async fn by_keys(&self, keys: &[(ClientId, IdempotencyKey)]) -> Result<Vec<KeyRecord>> {
        const OPERATION: &str = "orders.by_keys";
        let query = sqlx::query(BY_KEYS).bind(column(keys, |(client, _)| &*client.0)).bind(column(keys, |(_, key)| key.as_str()));
        let rows = self.reads.all(query).await.map_err(failed(OPERATION, Lost::Nothing))?;
        columns::all(OPERATION, &rows, columns::key_record)
    }

    async fn cancels(&self) -> Result<Box<dyn Cancels>> {
        Ok(Box::new(PgCancels::connect(self.cancels.clone()).await?))
    }

    async fn changed(&self, known: &[(OrderId, i32)]) -> Result<Vec<Changed>> {
        const OPERATION: &str = "orders.changed";
        let query = sqlx::query(CHANGED).bind(column(known, |(id, _)| id.0)).bind(column(known, |(_, version)| *version));
        let rows = self.reads.all(query).await.map_err(failed(OPERATION, Lost::Nothing))?;
        columns::all(OPERATION, &rows, columns::changed)
    }

    async fn ping(&self) -> Result<()> {
        const OPERATION: &str = "orders.ping";
        let asked = async { self.housekeeping.one(sqlx::query(PING)).await?.flag(0) };
        if !asked.await.map_err(failed(OPERATION, Lost::Nothing))? {
            return Err(StoreError::retry(OPERATION, anyhow::anyhow!("the server is read-only")));
        }
        if self.full.is() {
            let room = self.housekeeping.attempt(FIND_ROOM).await;
            if room.as_ref().is_err_and(is_full) {
                return room.map_err(failed(OPERATION, Lost::Nothing));
            }
            self.full.set(false);
        }
        Ok(())
    }
}
