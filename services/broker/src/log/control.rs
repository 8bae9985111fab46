//! Changes that have a transaction of their own: topics, removal of records, producer ids, retention.

use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::protocol::StrBytes;
use serde_json::json;
use sqlx::{Row, SqliteConnection};
use uuid::Uuid;

use super::{Control, Reply, Writer};
use crate::catalog::{Partition, Topic};
use crate::error::Error;
use crate::settings::TopicSettings;
use crate::storage::{MAX_OFFSET, first, last_offset, row_id};

/// The batches and bytes of one removal transaction. Few, because SQLite reads the pages that it frees, and the writer waits
/// meanwhile.
const STEP: i64 = 500;
const STEP_BYTES: i64 = 8 << 20;
/// Days after which a silent producer is forgotten; its next batch starts a new sequence.
const PRODUCER_DAYS: i64 = 7;

impl Writer {
    /// Runs one change and answers it; returns an error only if the log cannot continue.
    pub(super) async fn control(&mut self, control: Control) -> Result<(), Error> {
        let outcome = match control {
            Control::CreateTopic { name, partitions, settings, reply } => self.create(&name, partitions, settings, reply).await,
            Control::DeleteTopic { topic, reply } => self.delete(&topic, reply).await,
            Control::DeleteRecords { partition, before, reply } => {
                let moved = move_start(&mut self.connection, &partition, before).await;
                answer(reply, moved.map(|()| partition.start()))
            }
            Control::NewProducer { reply } => answer(reply, new_producer(&mut self.connection).await),
            Control::Forget { group, partitions, reply } => answer(reply, forget(&mut self.connection, group, partitions).await),
            Control::Remove { partition, before, reply } => answer(reply, remove(&mut self.connection, &partition, before).await),
            Control::Sweep { reply } => answer(reply, sweep(&mut self.connection).await),
        };
        match outcome {
            Ok(()) => Ok(()),
            Err(e) => self.recover("change the event log", e).await,
        }
    }

    async fn create(
        &mut self,
        name: &str,
        partitions: i32,
        settings: TopicSettings,
        reply: Reply<Arc<Topic>>,
    ) -> sqlx::Result<()> {
        // Two requests may both have found the name free.
        if self.shared.catalog.get(name).is_some() {
            _ = reply.send(Err(ResponseError::TopicAlreadyExists));
            return Ok(());
        }
        let made = create_topic(&mut self.connection, name, partitions, settings).await.map(Arc::new);
        if let Ok(topic) = &made {
            self.shared.catalog.insert(Arc::clone(topic));
        }
        answer(reply, made)
    }

    async fn delete(&mut self, topic: &Topic, reply: Reply<()>) -> sqlx::Result<()> {
        if self.shared.catalog.by_id(topic.id).is_none() {
            _ = reply.send(Err(ResponseError::UnknownTopicOrPartition));
            return Ok(());
        }
        let deleted = delete_topic(&mut self.connection, topic).await;
        if deleted.is_ok() {
            self.shared.catalog.remove(topic);
        }
        answer(reply, deleted)
    }
}

/// Sends the outcome to the caller, which may be gone, and returns the error.
fn answer<T>(reply: Reply<T>, outcome: sqlx::Result<T>) -> sqlx::Result<()> {
    match outcome {
        Ok(value) => _ = reply.send(Ok(value)),
        Err(e) => {
            _ = reply.send(Err(ResponseError::KafkaStorageError));
            return Err(e);
        }
    }
    Ok(())
}

const CREATE: &str = "
BEGIN IMMEDIATE;
INSERT INTO topic VALUES ($1, $2, $3, $4, $5);
INSERT INTO part (topic, number) SELECT $1, value FROM json_each($6);
SELECT id FROM part WHERE topic = $1 ORDER BY number;
COMMIT;";

async fn create_topic(
    connection: &mut SqliteConnection,
    name: &str,
    partitions: i32,
    settings: TopicSettings,
) -> sqlx::Result<Topic> {
    let id: Vec<u8> = first(sqlx::query_scalar("SELECT randomblob(16)").fetch_all(&mut *connection).await?)?;
    let id = Uuid::from_slice(&id).map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
    let numbers: Vec<i32> = (0..partitions).collect();
    let rows = sqlx::query(CREATE)
        .bind(name)
        .bind(id.as_bytes().to_vec())
        .bind(settings.retention.map(|age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX)))
        .bind(settings.retention_bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)))
        .bind(settings.max_message_bytes)
        .bind(json!(numbers).to_string())
        .fetch_all(connection)
        .await?;
    let mut made = Vec::with_capacity(rows.len());
    for (number, row) in (0..).zip(rows) {
        made.push(Arc::new(Partition::new(row.try_get(0)?, number, 0, 0, 0)));
    }
    Ok(Topic { name: StrBytes::from_string(name.to_owned()), id, settings, partitions: made })
}

/// Deletes a topic, and by cascade its producer state and committed offsets; batches are removed later, in steps.
async fn delete_topic(connection: &mut SqliteConnection, topic: &Topic) -> sqlx::Result<()> {
    sqlx::query(
        "BEGIN IMMEDIATE;
         INSERT OR IGNORE INTO doomed SELECT id FROM part WHERE topic = $1;
         DELETE FROM topic WHERE name = $1;
         COMMIT;",
    )
    .bind(topic.name.to_string())
    .execute(connection)
    .await?;
    Ok(())
}

/// Skips ids that have rows: a producer with such an id would have its first batches treated as repeats.
const NEW_PRODUCER: &str = "
WITH RECURSIVE taken (id) AS (
  SELECT value FROM meta WHERE key = 'producer'
  UNION ALL
  SELECT id + 1 FROM taken WHERE EXISTS (SELECT 1 FROM part p JOIN producer r ON r.part = p.id AND r.id = taken.id))
UPDATE meta SET value = (SELECT max(id) FROM taken) + 1 WHERE key = 'producer' RETURNING value - 1";

async fn new_producer(connection: &mut SqliteConnection) -> sqlx::Result<i64> {
    first(sqlx::query_scalar(NEW_PRODUCER).fetch_all(connection).await?)
}

async fn move_start(connection: &mut SqliteConnection, partition: &Partition, before: i64) -> sqlx::Result<()> {
    let start = sqlx::query_scalar("UPDATE part SET start = max(start, ?2) WHERE id = ?1 RETURNING start")
        .bind(partition.id)
        .bind(before)
        .fetch_all(connection)
        .await?;
    // No row: the topic was deleted meanwhile.
    if let Some(start) = start.first() {
        partition.shrink(*start, partition.bytes());
    }
    Ok(())
}

async fn forget(connection: &mut SqliteConnection, group: String, partitions: Option<Vec<i64>>) -> sqlx::Result<bool> {
    let forgotten =
        sqlx::query("DELETE FROM committed WHERE grp = ?1 AND (?2 IS NULL OR part IN (SELECT value FROM json_each(?2)))")
            .bind(group)
            .bind(partitions.map(|ids| json!(ids).to_string()))
            .execute(connection)
            .await?;
    Ok(forgotten.rows_affected() > 0)
}

const REMOVE: &str = "
BEGIN IMMEDIATE;
UPDATE part SET start = max(start, $4),
  bytes = bytes - (SELECT coalesce(sum(length(bytes)), 0) FROM batch WHERE id BETWEEN $2 AND $3)
  WHERE id = $1 RETURNING start, bytes;
DELETE FROM batch WHERE id BETWEEN $2 AND $3;
COMMIT;";

const STEP_END: &str = "
SELECT max(id) FROM (
  SELECT id, size, sum(size) OVER (ORDER BY id) AS total FROM (
    SELECT id, length(bytes) AS size FROM batch WHERE id BETWEEN ?1 AND ?2 ORDER BY id LIMIT ?3))
WHERE total <= ?4 OR total = size";

/// Returns the row id of the last batch of one removal step, among those that end below `before`.
async fn step_end(connection: &mut SqliteConnection, part: i64, before: i64) -> sqlx::Result<Option<i64>> {
    let end = sqlx::query_scalar(STEP_END)
        .bind(row_id(part, 0))
        .bind(row_id(part, before) - 1)
        .bind(STEP)
        .bind(STEP_BYTES)
        .fetch_all(connection)
        .await?;
    first(end)
}

/// Removes the oldest batches that end below `before`, one step at most, and moves the start behind them.
async fn remove(connection: &mut SqliteConnection, partition: &Partition, before: i64) -> sqlx::Result<()> {
    let last = step_end(connection, partition.id, before).await?;
    let Some(last) = last else { return Ok(()) };
    let rows = sqlx::query(REMOVE)
        .bind(partition.id)
        .bind(row_id(partition.id, 0))
        .bind(last)
        .bind(last_offset(last) + 1)
        .fetch_all(connection)
        .await?;
    if let Some(row) = rows.first() {
        partition.shrink(row.try_get(0)?, row.try_get(1)?);
    }
    Ok(())
}

/// Removes one step of what deleted topics and silent producers left; returns whether more may be left.
async fn sweep(connection: &mut SqliteConnection) -> sqlx::Result<bool> {
    let forgotten = sqlx::query("DELETE FROM producer WHERE at < (unixepoch() - ?1 * 86400) * 1000")
        .bind(PRODUCER_DAYS)
        .execute(&mut *connection)
        .await?;
    let doomed: Vec<i64> = sqlx::query_scalar("SELECT part FROM doomed LIMIT 1").fetch_all(&mut *connection).await?;
    let Some(part) = doomed.first().copied() else {
        return Ok(forgotten.rows_affected() > 0);
    };
    match step_end(connection, part, MAX_OFFSET).await? {
        Some(last) => {
            let remove = sqlx::query("DELETE FROM batch WHERE id BETWEEN ?1 AND ?2");
            remove.bind(row_id(part, 0)).bind(last).execute(connection).await?;
        }
        None => {
            sqlx::query("DELETE FROM doomed WHERE part = ?1").bind(part).execute(connection).await?;
        }
    }
    Ok(true)
}
