//! Dead letters and parked keys, as operators query them.

use bytes::Bytes;
use minishop_core::ids::{EventId, OrderId};

use super::super::Result;
use super::super::columns::Columns as _;
use super::super::database::{Arg, Row, Statement};
use super::{DeadLetterFilter, Letter, LetterGroup, Operations, ParkedKey, WholeLetter};

/// The columns of [`letter`].
macro_rules! letter_columns {
    () => {
        "p.id, p.event_id, p.order_id, p.type, p.topic, p.partition, p.source_offset, p.record_key, p.blocks, p.state, \
         coalesce(p.error_class, ''), coalesce(p.error_code, ''), coalesce(p.error_message, ''), p.error_fingerprint, \
         p.attempts, p.redrives, coalesce(p.first_failed_at, p.parked_at), coalesce(p.last_failed_at, p.parked_at)"
    };
}

/// The condition of a filter on `p`, with its parameters `$1` to `$6`.
macro_rules! filter_clause {
    () => {
        "p.state = 'dead' AND ($1 IS NULL OR p.error_class = $1) AND ($2 IS NULL OR p.error_code = $2) \
         AND ($3 IS NULL OR p.error_fingerprint = $3) AND ($4 IS NULL OR p.topic = $4) AND ($5 IS NULL OR p.record_key = $5) \
         AND ($6 IS NULL OR p.order_id = $6)"
    };
}
pub(super) use filter_clause;

static LIST: Statement = Statement::new(concat!(
    "SELECT ",
    letter_columns!(),
    " FROM parked p WHERE ",
    filter_clause!(),
    " AND p.id < $7 ORDER BY p.id DESC LIMIT $8"
));

static GET: Statement = Statement::new(concat!(
    "SELECT ",
    letter_columns!(),
    ", p.raw_key, p.raw_value, p.raw_headers, p.parked_at, p.next_attempt_at, (SELECT count(*) FROM parked w \
     WHERE p.blocks AND w.consumer = p.consumer AND w.record_key = p.record_key AND w.blocks AND w.id > p.id), \
     (SELECT o.status FROM orders o WHERE o.order_id = p.order_id) FROM parked p WHERE p.id = $1"
));

static GROUPS: Statement = Statement::new(
    "SELECT g.error_fingerprint, coalesce(p.error_class, ''), coalesce(p.error_code, ''), coalesce(p.error_message, ''), \
     g.letters, g.first_at, g.last_at, g.newest FROM (SELECT error_fingerprint, count(*) AS letters, \
     min(coalesce(first_failed_at, parked_at)) AS first_at, max(coalesce(last_failed_at, parked_at)) AS last_at, \
     max(id) AS newest FROM parked WHERE state = 'dead' GROUP BY error_fingerprint) g JOIN parked p ON p.id = g.newest \
     ORDER BY g.letters DESC, g.newest DESC LIMIT $1",
);

static PARKED_KEYS: Statement = Statement::new(
    "SELECT h.id, h.record_key, h.state, coalesce(h.error_code, ''), h.attempts, h.parked_at, h.next_attempt_at, \
     (SELECT count(*) FROM parked w WHERE w.consumer = h.consumer AND w.record_key = h.record_key AND w.blocks \
     AND w.id > h.id), h.needs_type FROM parked h WHERE h.blocks AND h.id > $1 AND NOT EXISTS (SELECT 1 FROM parked e \
     WHERE e.consumer = h.consumer AND e.record_key = h.record_key AND e.blocks AND e.id < h.id) ORDER BY h.id LIMIT $2",
);

impl Operations {
    /// Reads dead letters that match a filter and have an id below `before`, newest first.
    pub async fn dead_letters(&self, filter: &DeadLetterFilter, before: Option<i64>, limit: i64) -> Result<Vec<Letter>> {
        let mut args = filter_args(filter);
        args.extend([Arg::Long(before.unwrap_or(i64::MAX)), Arg::Long(limit)]);
        self.0.all("operations.dead_letters", &LIST, args, letter).await
    }

    /// Reads one parked event in any state.
    pub async fn dead_letter(&self, id: i64) -> Result<Option<WholeLetter>> {
        self.0.first("operations.dead_letter", &GET, vec![Arg::Long(id)], whole_letter).await
    }

    /// Groups dead letters by the fingerprint of their error, the largest group first.
    pub async fn dead_letter_groups(&self, limit: i64) -> Result<Vec<LetterGroup>> {
        self.0.all("operations.dead_letter_groups", &GROUPS, vec![Arg::Long(limit)], group).await
    }

    /// Reads the heads of keys with parked events, oldest first, with an id above `after`.
    pub async fn parked_keys(&self, after: Option<i64>, limit: i64) -> Result<Vec<ParkedKey>> {
        let args = vec![Arg::Long(after.unwrap_or(0)), Arg::Long(limit)];
        self.0.all("operations.parked_keys", &PARKED_KEYS, args, parked_key).await
    }
}

/// Binds a filter as `$1` to `$6`.
pub(super) fn filter_args(filter: &DeadLetterFilter) -> Vec<Arg> {
    vec![
        Arg::Text(filter.error_class.clone()),
        Arg::Text(filter.error_code.clone()),
        Arg::Bytes(filter.error_fingerprint.clone()),
        Arg::Text(filter.topic.clone()),
        Arg::Bytes(filter.record_key.clone()),
        Arg::Id(filter.order_id.map(|id| id.0)),
    ]
}

fn maybe(bytes: Option<&[u8]>) -> Option<Bytes> {
    bytes.map(Bytes::copy_from_slice)
}

fn letter(row: &Row) -> sqlx::Result<Letter> {
    Ok(Letter {
        id: row.long(0)?,
        event_id: EventId(row.id(1)?),
        order_id: row.maybe_id(2)?.map(OrderId),
        event_type: row.maybe_text(3)?.map(str::to_owned),
        position: (row.text(4)?.to_owned(), row.int(5)?, row.long(6)?),
        record_key: Bytes::copy_from_slice(row.bytes(7)?),
        blocks: row.flag(8)?,
        state: row.text(9)?.to_owned(),
        error_class: row.text(10)?.to_owned(),
        error_code: row.text(11)?.to_owned(),
        error_message: row.text(12)?.to_owned(),
        error_fingerprint: maybe(row.maybe_bytes(13)?),
        attempts: row.int(14)?,
        redrives: row.int(15)?,
        first_failed_at: row.time(16)?,
        last_failed_at: row.time(17)?,
    })
}

fn whole_letter(row: &Row) -> sqlx::Result<WholeLetter> {
    Ok(WholeLetter {
        letter: letter(row)?,
        raw_key: maybe(row.maybe_bytes(18)?),
        raw_value: maybe(row.maybe_bytes(19)?),
        raw_headers: Bytes::copy_from_slice(row.bytes(20)?),
        parked_at: row.time(21)?,
        next_attempt_at: row.maybe_time(22)?,
        waiting: row.long(23)?,
        order_status: row.maybe_text(24)?.map(str::to_owned),
    })
}

fn group(row: &Row) -> sqlx::Result<LetterGroup> {
    Ok(LetterGroup {
        error_fingerprint: maybe(row.maybe_bytes(0)?),
        error_class: row.text(1)?.to_owned(),
        error_code: row.text(2)?.to_owned(),
        error_message: row.text(3)?.to_owned(),
        count: row.long(4)?,
        first_failed_at: row.time(5)?,
        last_failed_at: row.time(6)?,
        example: row.long(7)?,
    })
}

fn parked_key(row: &Row) -> sqlx::Result<ParkedKey> {
    Ok(ParkedKey {
        head: row.long(0)?,
        record_key: Bytes::copy_from_slice(row.bytes(1)?),
        state: row.text(2)?.to_owned(),
        error_code: row.text(3)?.to_owned(),
        attempts: row.int(4)?,
        since: row.time(5)?,
        next_attempt_at: row.maybe_time(6)?,
        waiting: row.long(7)?,
        needs_type: row.maybe_text(8)?.map(str::to_owned),
    })
}
