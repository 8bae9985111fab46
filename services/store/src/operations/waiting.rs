//! What operators see and do where the outbox is stuck: rows of a topic that accepts nothing, and missing numbers.

use bytes::Bytes;
use minishop_core::clock::Timestamp;
use minishop_core::ids::EventId;
use uuid::Uuid;

use super::super::Result;
use super::super::columns::Columns as _;
use super::super::database::{Arg, Row, Statement, Work};
use super::run::close;
use super::{Operations, RequestedBy, audit, words};

/// The most rows that one transaction sets aside.
const PAGE: i64 = 500;
/// The longest gap that can be stepped over. A longer one means that the store was replaced, not that rows were lost.
const LONGEST_GAP: i64 = 100_000;

static SHARDS: Statement = Statement::new(
    "SELECT s.shard, s.acknowledged, coalesce((SELECT max(e.number) FROM outbox_event e WHERE e.shard = s.shard), s.acknowledged), \
     (SELECT count(*) FROM outbox_event e WHERE e.shard = s.shard AND e.number > s.acknowledged) FROM outbox_shard s ORDER BY s.shard",
);

/// Selects the columns that `waiting` reads.
macro_rules! rows {
    ($rest:literal) => {
        concat!("SELECT shard, number, event_id, topic, created_at FROM outbox_waiting WHERE NOT set_aside ", $rest)
    };
}

static WAITING: Statement = Statement::new(rows!("ORDER BY created_at, shard, number LIMIT $1"));

static OF_TOPIC: Statement = Statement::new(rows!("AND topic = $1 ORDER BY shard, number LIMIT $2"));

static OF_EVENT: Statement = Statement::new(rows!("AND event_id = $1 ORDER BY shard, number LIMIT $2"));

static KEPT: Statement = Statement::new(
    "SELECT shard, number, event_id, topic, set_aside_at, reason FROM outbox_set_aside ORDER BY set_aside_at DESC LIMIT $1",
);

static MARK: Statement = Statement::new(
    "UPDATE outbox_event SET set_aside = true WHERE shard = $1 AND number = $2 AND event_id = $3 RETURNING number",
);

static KEEP: Statement = Statement::new(
    "INSERT INTO outbox_set_aside (shard, number, event_id, topic, record_key, order_id, order_version, payload, headers, \
     created_at, reason, set_aside_at) SELECT e.shard, e.number, e.event_id, e.topic, e.record_key, e.order_id, e.order_version, \
     e.payload, e.headers, e.created_at, $4, @now1 FROM outbox_event e WHERE e.shard = $2 AND e.number = $3 \
     ON CONFLICT (event_id) DO NOTHING",
);

// Finds the first missing number: the acknowledged one, the next that exists, and whether the one before it exists.
static GAP: Statement = Statement::new(
    "SELECT s.acknowledged, \
     (SELECT coalesce(min(e.number), 0) FROM outbox_event e WHERE e.shard = s.shard AND e.number >= $2), \
     (SELECT count(*) FROM outbox_event e WHERE e.shard = s.shard AND e.number = $2 - 1) FROM outbox_shard s WHERE s.shard = $1",
);

static FILL: Statement = Statement::new(
    "INSERT INTO outbox_event (shard, number, event_id, topic, record_key, headers, set_aside, created_at) \
     VALUES ($2, $3, $4, '', $5, $5, true, @now1)",
);

/// One shard of the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxShard {
    pub shard: i16,
    /// The number up to which everything is published.
    pub acknowledged: i64,
    pub last: i64,
    /// How many rows wait; fewer than `last - acknowledged` if some are gone.
    pub waiting: i64,
}

/// An event that waits to be published, or that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxEvent {
    pub shard: i16,
    pub number: i64,
    pub event_id: EventId,
    /// Its topic, prefix included.
    pub topic: String,
    /// Since when it waits, or when it was set aside.
    pub at: Timestamp,
    pub reason: Option<String>,
}

/// Which waiting events to set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unpublished {
    Event(EventId),
    /// All of a topic.
    Topic(String),
}

/// The answer to a request to step over missing numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// The first and the last number that are stepped over.
    SteppedOver(i64, i64),
    /// Nothing: the number exists, is published, is the last, follows another missing one, or begins too long a gap.
    No,
}

impl Operations {
    /// Reads the progress of each shard.
    pub async fn outbox_shards(&self) -> Result<Vec<OutboxShard>> {
        self.0.all("operations.outbox_shards", &SHARDS, Vec::new(), shard).await
    }

    /// Reads events that wait, the oldest first.
    pub async fn outbox_waiting(&self, limit: i64) -> Result<Vec<OutboxEvent>> {
        self.0.all("operations.outbox_waiting", &WAITING, vec![Arg::Long(limit)], waiting).await
    }

    /// Reads events that were set aside, the newest first.
    pub async fn outbox_set_aside(&self, limit: i64) -> Result<Vec<OutboxEvent>> {
        self.0.all("operations.outbox_set_aside", &KEPT, vec![Arg::Long(limit)], kept).await
    }

    /// Sets waiting events aside, with the reason, so that later ones go on. Returns how many.
    ///
    /// An event that is in flight to a topic that accepts it may be published all the same.
    pub async fn set_aside(&self, which: &Unpublished, requested_by: &RequestedBy, at: Timestamp) -> Result<u64> {
        let mut all = 0;
        loop {
            let done = self.set_page_aside(which, requested_by, at).await?;
            all += done;
            if done == 0 {
                return Ok(all);
            }
        }
    }

    async fn set_page_aside(&self, which: &Unpublished, requested_by: &RequestedBy, at: Timestamp) -> Result<u64> {
        const OPERATION: &str = "operations.set_aside";
        let (statement, chosen) = match which {
            Unpublished::Event(id) => (&OF_EVENT, Arg::Id(Some(id.0))),
            Unpublished::Topic(topic) => (&OF_TOPIC, Arg::text(topic)),
        };
        let events = self.0.all(OPERATION, statement, vec![chosen, Arg::Long(PAGE)], waiting).await?;
        let mut work = self.0.begin(OPERATION).await?;
        let mut done = 0;
        for event in events {
            done += u64::from(keep(work.as_mut(), event.shard, event.number, event.event_id, &requested_by.reason).await?);
        }
        if done > 0 {
            audit::write(work.as_mut(), &words::set_aside(which, done, requested_by, at)).await?;
        }
        close(work, done > 0).await?;
        Ok(done)
    }

    /// Keeps a row that cannot be published, with the reason, and marks it; returns `false` when the number is not this event's.
    pub async fn set_row_aside(&self, shard: i16, number: i64, event_id: EventId, reason: &str) -> Result<bool> {
        let mut work = self.0.begin("operations.set_row_aside").await?;
        let is_kept = keep(work.as_mut(), shard, number, event_id, reason).await?;
        close(work, is_kept).await?;
        Ok(is_kept)
    }

    /// Lets the leader step over missing numbers of a shard, from `number` up to the next that exists. Their events are lost.
    pub async fn step_over(&self, shard: i16, number: i64, requested_by: &RequestedBy, at: Timestamp) -> Result<Missing> {
        const OPERATION: &str = "operations.step_over";
        let args = vec![Arg::Long(shard.into()), Arg::Long(number)];
        let read = |row: &Row| -> sqlx::Result<_> { Ok((row.long(0)?, row.long(1)?, row.long(2)? > 0)) };
        let found = self.0.first(OPERATION, &GAP, args, read).await?;
        let Some((acknowledged, next, has_one_before)) = found else { return Ok(Missing::No) };
        let is_missing = next > number && (number == acknowledged + 1 || (number > acknowledged && has_one_before));
        if !is_missing || next - number > LONGEST_GAP {
            return Ok(Missing::No);
        }
        let mut work = self.0.begin(OPERATION).await?;
        for missing in number..next {
            let nobody = Uuid::from_u128(rand::random());
            let place =
                [Arg::Now, Arg::Long(shard.into()), Arg::Long(missing), Arg::Id(Some(nobody)), Arg::Bytes(Some(Bytes::new()))];
            work.run(&FILL, place.into()).await?;
        }
        audit::write(work.as_mut(), &words::step_over(shard, number, next - 1, requested_by, at)).await?;
        work.commit().await?;
        Ok(Missing::SteppedOver(number, next - 1))
    }
}

fn shard(row: &Row) -> sqlx::Result<OutboxShard> {
    Ok(OutboxShard { shard: row.small(0)?, acknowledged: row.long(1)?, last: row.long(2)?, waiting: row.long(3)? })
}

fn kept(row: &Row) -> sqlx::Result<OutboxEvent> {
    Ok(OutboxEvent { reason: Some(row.text(5)?.to_owned()), ..waiting(row)? })
}

fn waiting(row: &Row) -> sqlx::Result<OutboxEvent> {
    Ok(OutboxEvent {
        shard: row.small(0)?,
        number: row.long(1)?,
        event_id: EventId(row.id(2)?),
        topic: row.text(3)?.to_owned(),
        at: row.time(4)?,
        reason: None,
    })
}

async fn keep(work: &mut dyn Work, shard: i16, number: i64, event_id: EventId, reason: &str) -> Result<bool> {
    let (shard, number) = (Arg::Long(shard.into()), Arg::Long(number));
    let marked = work.run(&MARK, vec![shard.clone(), number.clone(), Arg::Id(Some(event_id.0))]).await?;
    if !marked.is_empty() {
        work.run(&KEEP, vec![Arg::Now, shard, number, Arg::text(reason)]).await?;
    }
    Ok(!marked.is_empty())
}
