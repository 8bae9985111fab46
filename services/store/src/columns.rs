//! Maps rows of either database to values. Each function lists its columns in the order in which a statement selects them.

use std::collections::HashSet;
use std::fmt::Display;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use minishop_core::clock::{Timestamp, from_millis};
use minishop_core::idempotency::{Fingerprint, IdempotencyKey};
use minishop_core::ids::{ClientId, CorrelationId, EventId, OrderId};
use minishop_core::order::Status;
use minishop_core::order_head::OrderHead;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::{
    Brief, Changed, Claimed, End, KeyRecord, KnownOrder, Lease, NewEvent, OrderRow, Origin, OutboxRow, OutboxStats, PastOrder,
    Result, StoreError,
};

/// A row whose columns are read by index. The two databases differ in how they store a time.
pub(super) trait Columns {
    fn text(&self, n: usize) -> sqlx::Result<&str>;
    fn maybe_text(&self, n: usize) -> sqlx::Result<Option<&str>>;
    fn bytes(&self, n: usize) -> sqlx::Result<&[u8]>;
    fn maybe_bytes(&self, n: usize) -> sqlx::Result<Option<&[u8]>>;
    fn id(&self, n: usize) -> sqlx::Result<Uuid>;
    fn maybe_id(&self, n: usize) -> sqlx::Result<Option<Uuid>>;
    fn small(&self, n: usize) -> sqlx::Result<i16>;
    fn int(&self, n: usize) -> sqlx::Result<i32>;
    fn maybe_int(&self, n: usize) -> sqlx::Result<Option<i32>>;
    fn long(&self, n: usize) -> sqlx::Result<i64>;
    fn double(&self, n: usize) -> sqlx::Result<f64>;
    fn maybe_double(&self, n: usize) -> sqlx::Result<Option<f64>>;
    fn flag(&self, n: usize) -> sqlx::Result<bool>;
    fn time(&self, n: usize) -> sqlx::Result<Timestamp>;
    fn maybe_time(&self, n: usize) -> sqlx::Result<Option<Timestamp>>;
}

macro_rules! columns {
    ($row:ty, $time:expr) => {
        impl Columns for $row {
            columns!(text -> &str, maybe_text -> Option<&str>, bytes -> &[u8], maybe_bytes -> Option<&[u8]>, id -> Uuid,
                maybe_id -> Option<Uuid>, small -> i16, int -> i32, maybe_int -> Option<i32>, long -> i64, double -> f64,
                maybe_double -> Option<f64>, flag -> bool);

            fn time(&self, n: usize) -> sqlx::Result<Timestamp> {
                self.try_get(n).map($time)
            }

            fn maybe_time(&self, n: usize) -> sqlx::Result<Option<Timestamp>> {
                self.try_get::<Option<_>, _>(n).map(|time| time.map($time))
            }
        }
    };
    ($($name:ident -> $of:ty),+) => {
        $(fn $name(&self, n: usize) -> sqlx::Result<$of> {
            self.try_get(n)
        })+
    };
}

columns!(PgRow, |time: Timestamp| time);
columns!(SqliteRow, from_millis);

/// Reads one row. A value that this binary does not write is a `StoreError::Fail`.
pub(super) fn one<R, T, E: Display>(operation: &'static str, row: &R, read: impl Fn(&R) -> Result<T, E>) -> Result<T> {
    read(row).map_err(|error| StoreError::unreadable(operation, error))
}

/// Reads the first row.
pub(super) fn first<R, T, E: Display>(
    operation: &'static str,
    rows: &[R],
    read: impl Fn(&R) -> Result<T, E>,
) -> Result<Option<T>> {
    rows.first().map(|row| one(operation, row, read)).transpose()
}

/// Reads all rows.
pub(super) fn all<R, T, E: Display>(operation: &'static str, rows: &[R], read: impl Fn(&R) -> Result<T, E>) -> Result<Vec<T>> {
    rows.iter().map(|row| one(operation, row, &read)).collect()
}

/// Keeps the first row of each id. The id is the first column.
pub(super) fn once_each(rows: &mut Vec<impl Columns>) {
    let mut seen = HashSet::new();
    rows.retain(|row| row.id(0).map_or(true, |id| seen.insert(id)));
}

/// Reads an event id and the digest under which the event was settled.
pub(super) fn digest((id, sha): (Uuid, Vec<u8>)) -> sqlx::Result<(EventId, [u8; 32])> {
    let sha = sha.try_into().map_err(|_| sqlx::Error::Decode("a digest is not 32 bytes long".into()))?;
    Ok((EventId(id), sha))
}

fn status(text: &str) -> anyhow::Result<Status> {
    Status::parse(text).context("unknown status")
}

/// Client, key, order id, fingerprint, total, currency.
pub(super) fn key_record(row: &impl Columns) -> anyhow::Result<KeyRecord> {
    Ok(KeyRecord {
        client_id: ClientId(row.text(0)?.to_owned()),
        key: IdempotencyKey::of_event(row.text(1)?)?,
        order_id: OrderId(row.id(2)?),
        fingerprint: Fingerprint(row.bytes(3)?.try_into()?),
        total_minor: row.long(4)?,
        currency: row.maybe_text(5)?.map(str::to_owned),
    })
}

/// The columns of an order `o` that [`order_row`] reads, in its order.
macro_rules! order_columns {
    () => {
        "o.order_id, o.client_id, o.customer_id, o.status, o.version, o.currency, o.total_minor, CAST(o.items AS text), \
         o.correlation_id, o.created_at, o.idempotency_key"
    };
}
pub(super) use order_columns;

pub(super) fn order_row(row: &impl Columns) -> anyhow::Result<OrderRow> {
    Ok(OrderRow {
        head: OrderHead {
            order_id: OrderId(row.id(0)?),
            client_id: ClientId(row.text(1)?.to_owned()),
            customer_id: row.text(2)?.to_owned(),
            key: IdempotencyKey::of_event(row.text(10)?)?,
            correlation_id: CorrelationId::parse(row.text(8)?).context("malformed correlation id")?,
            currency: row.maybe_text(5)?.map(str::to_owned),
            total_minor: row.long(6)?,
            created_at: row.time(9)?,
        },
        status: status(row.text(3)?)?,
        version: row.int(4)?,
        items: row.text(7)?.to_owned(),
    })
}

/// An order's columns, then the time of its last change.
pub(super) fn changed(row: &impl Columns) -> anyhow::Result<Changed> {
    Ok(Changed { order: order_row(row)?, at: row.maybe_time(11)? })
}

/// The columns of an order `o` that [`origin`] reads, in its order.
macro_rules! origin_columns {
    () => {
        concat!($crate::columns::order_columns!(), ", o.traceparent, o.created_event_id, o.settled_event_id, o.adopted")
    };
}
pub(super) use origin_columns;

pub(super) fn origin(row: &impl Columns) -> anyhow::Result<Origin> {
    Ok(Origin {
        order: order_row(row)?,
        traceparent: row.maybe_text(11)?.map(str::to_owned),
        created_event_id: EventId(row.id(12)?),
        settled_event_id: row.maybe_id(13)?.map(EventId),
        adopted: row.flag(14)?,
    })
}

/// The columns that [`past_order`] reads, in its order: of an order `o` and the timeline row `t` of its last change.
macro_rules! past_order_columns {
    () => {
        concat!($crate::columns::origin_columns!(), ", t.at, t.cause")
    };
}
pub(super) use past_order_columns;

pub(super) fn past_order(row: &impl Columns) -> anyhow::Result<PastOrder> {
    let origin = origin(row)?;
    let end = match (origin.settled_event_id, row.maybe_time(15)?, row.maybe_id(16)?) {
        (Some(event_id), Some(at), Some(cause)) => Some(End { event_id, at, cause: EventId(cause) }),
        _ => None,
    };
    Ok(PastOrder { origin, end })
}

/// Order id, client, key, fingerprint, status, version, id of the event that announced it.
pub(super) fn known_order(row: &impl Columns) -> anyhow::Result<KnownOrder> {
    Ok(KnownOrder {
        order_id: OrderId(row.id(0)?),
        client_id: ClientId(row.text(1)?.to_owned()),
        key: IdempotencyKey::of_event(row.text(2)?)?,
        fingerprint: Fingerprint(row.bytes(3)?.try_into()?),
        status: status(row.text(4)?)?,
        version: row.int(5)?,
        created_event_id: EventId(row.id(6)?),
    })
}

/// Count, age of the oldest in milliseconds.
pub(super) fn outbox_stats(row: &impl Columns) -> sqlx::Result<OutboxStats> {
    let oldest = Duration::from_millis(u64::try_from(row.long(1)?).unwrap_or(0));
    Ok(OutboxStats { depth: row.long(0)?, oldest })
}

/// The columns that [`outbox_row`] reads, in its order.
macro_rules! outbox_columns {
    () => {
        "shard, number, event_id, topic, record_key, order_id, order_version, payload, headers, set_aside, trace"
    };
}
pub(super) use outbox_columns;

/// A row without headers is brief.
pub(super) fn outbox_row(row: &impl Columns) -> sqlx::Result<OutboxRow> {
    let headers = row.maybe_bytes(8)?;
    let brief = if headers.is_some() { None } else { Some(Brief { trace: row.maybe_text(10)?.map(str::to_owned) }) };
    Ok(OutboxRow {
        number: row.long(1)?,
        set_aside: row.flag(9)?,
        event: NewEvent {
            shard: row.small(0)?,
            event_id: EventId(row.id(2)?),
            topic: row.text(3)?.to_owned(),
            record_key: Bytes::copy_from_slice(row.bytes(4)?),
            order_id: row.maybe_id(5)?.map(OrderId),
            order_version: row.maybe_int(6)?,
            payload: row.maybe_bytes(7)?.map(Bytes::copy_from_slice),
            headers: headers.map(Bytes::copy_from_slice).unwrap_or_default(),
            brief,
        },
    })
}

/// The columns that [`claimed`] reads, in its order.
macro_rules! claimed_columns {
    () => {
        "id, lease_epoch, event_id, order_id, record_key, topic, partition, source_offset, raw_key, raw_value, raw_headers, \
         attempts, redrives, parked_at, first_failed_at"
    };
}
pub(super) use claimed_columns;

/// A claimed row. The caller sets `abandoned`.
pub(super) fn claimed(row: &impl Columns) -> sqlx::Result<Claimed> {
    let bytes = |n| row.maybe_bytes(n).map(|bytes| bytes.map(Bytes::copy_from_slice));
    Ok(Claimed {
        lease: Lease { id: row.long(0)?, epoch: row.long(1)?, event_id: EventId(row.id(2)?) },
        event_id: EventId(row.id(2)?),
        order_id: row.maybe_id(3)?.map(OrderId),
        record_key: Bytes::copy_from_slice(row.bytes(4)?),
        topic: row.text(5)?.to_owned(),
        partition: row.int(6)?,
        offset: row.long(7)?,
        raw_key: bytes(8)?,
        raw_value: bytes(9)?,
        raw_headers: Bytes::copy_from_slice(row.bytes(10)?),
        attempts: row.int(11)?,
        redrives: row.int(12)?,
        parked_at: row.time(13)?,
        first_failed_at: row.maybe_time(14)?,
        abandoned: false,
    })
}
