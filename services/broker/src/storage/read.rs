//! Reads from the file outside the writer.

use bytes::Bytes;
use sqlx::{Row, SqliteConnection, SqlitePool};
use uuid::Uuid;

use super::{MAX_OFFSET, first, last_offset, row_id};
use crate::catalog::{Partition, Topic};
use crate::settings::TopicSettings;
use kafka_protocol::protocol::StrBytes;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// A stored batch and the offset of its last record.
pub(crate) struct Stored {
    pub last: i64,
    pub bytes: Bytes,
}

/// Walks from batch to batch by size without reading the blobs, then reads only the picked batches.
const BATCHES: &str = "
WITH RECURSIVE picked (id, total) AS (
  SELECT id, length(bytes) FROM batch WHERE id = (SELECT min(id) FROM batch WHERE id BETWEEN ?1 AND ?2)
    AND (?4 OR length(bytes) <= ?3)
  UNION ALL
  SELECT b.id, total + length(b.bytes) FROM picked
    JOIN batch b ON b.id = (SELECT min(id) FROM batch WHERE id > picked.id AND id <= ?2)
  WHERE total + length(b.bytes) <= ?3
  LIMIT 1024)
SELECT id, bytes FROM batch WHERE id IN (SELECT id FROM picked) ORDER BY id";

/// Reads whole batches in the offset `range`, up to `limit` bytes; with `one_anyway` the first one even if it is larger.
pub(crate) async fn batches(
    pool: &SqlitePool,
    partition: &Partition,
    range: Range<i64>,
    limit: usize,
    one_anyway: bool,
) -> sqlx::Result<Vec<Stored>> {
    let rows = sqlx::query(BATCHES)
        .bind(row_id(partition.id, range.start))
        .bind(row_id(partition.id, range.end - 1))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .bind(one_anyway)
        .fetch_all(pool)
        .await?;
    rows.iter()
        .map(|row| Ok(Stored { last: last_offset(row.try_get(0)?), bytes: Bytes::from(row.try_get::<Vec<u8>, _>(1)?) }))
        .collect()
}

/// Result of a search by time: an offset in a batch and that batch's newest timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub offset: i64,
    pub timestamp: i64,
}

/// Finds the first batch with a record as new as `timestamp` (ms), without reading the records.
pub(crate) async fn at_time(pool: &SqlitePool, partition: &Partition, timestamp: i64) -> sqlx::Result<Option<Found>> {
    let rows = sqlx::query(
        "SELECT base, max_timestamp FROM batch WHERE id BETWEEN ?1 AND ?2 AND max_timestamp >= ?3 ORDER BY id LIMIT 1",
    )
    .bind(row_id(partition.id, partition.start()))
    .bind(row_id(partition.id, MAX_OFFSET))
    .bind(timestamp)
    .fetch_all(pool)
    .await?;
    rows.first().map(|row| Ok(Found { offset: row.try_get(0)?, timestamp: row.try_get(1)? })).transpose()
}

/// Finds the newest timestamp of a partition and the last offset of its batch.
pub(crate) async fn newest_time(pool: &SqlitePool, partition: &Partition) -> sqlx::Result<Option<Found>> {
    let rows =
        sqlx::query("SELECT id, max_timestamp FROM batch WHERE id BETWEEN ?1 AND ?2 ORDER BY max_timestamp DESC, id LIMIT 1")
            .bind(row_id(partition.id, partition.start()))
            .bind(row_id(partition.id, MAX_OFFSET))
            .fetch_all(pool)
            .await?;
    rows.first().map(|row| Ok(Found { offset: last_offset(row.try_get(0)?), timestamp: row.try_get(1)? })).transpose()
}

/// A group's committed position in one partition.
#[derive(Debug, Clone)]
pub(crate) struct Committed {
    pub topic: String,
    pub number: i32,
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: String,
}

/// Reads all committed positions of a group, sorted by topic and partition.
pub(crate) async fn committed(pool: &SqlitePool, group: &str) -> sqlx::Result<Vec<Committed>> {
    let rows = sqlx::query(
        "SELECT p.topic, p.number, c.position, c.leader_epoch, c.metadata FROM committed c JOIN part p ON p.id = c.part
         WHERE c.grp = ?1 ORDER BY p.topic, p.number",
    )
    .bind(group)
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Committed {
                topic: row.try_get(0)?,
                number: row.try_get(1)?,
                offset: row.try_get(2)?,
                leader_epoch: row.try_get(3)?,
                metadata: row.try_get(4)?,
            })
        })
        .collect()
}

/// Returns the groups that have committed positions.
pub(crate) async fn committed_groups(pool: &SqlitePool) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar("SELECT DISTINCT grp FROM committed").fetch_all(pool).await
}

/// What a start reads; small tables only, independent of the log's size.
pub(crate) struct Start {
    pub cluster: Uuid,
    /// Differs at every start, so that member ids of an earlier run are unknown.
    pub run_id: String,
    pub topics: Vec<Topic>,
}

/// Reads topics and partition bounds and checks that each partition's newest batch ends where its row says.
pub(crate) async fn start(connection: &mut SqliteConnection) -> sqlx::Result<Result<Start, String>> {
    let row = sqlx::query("SELECT value, lower(hex(randomblob(6))) FROM meta WHERE key = 'cluster'")
        .fetch_all(&mut *connection)
        .await
        .and_then(first)?;
    let Ok(cluster) = Uuid::from_slice(row.try_get(0)?) else {
        return Ok(Err("the cluster id is not 16 bytes".to_owned()));
    };
    let run_id = row.try_get(1)?;
    let heads = sqlx::query("SELECT name, id, retention_ms, retention_bytes, max_message_bytes FROM topic ORDER BY name")
        .fetch_all(&mut *connection)
        .await?;
    let mut topics = Vec::with_capacity(heads.len());
    for head in heads {
        let name: String = head.try_get(0)?;
        let partitions = match partitions(connection, &name).await? {
            Ok(partitions) => partitions,
            Err(reason) => return Ok(Err(reason)),
        };
        let Ok(id) = Uuid::from_slice(head.try_get(1)?) else {
            return Ok(Err(format!("topic {name} has no id")));
        };
        topics.push(Topic { name: StrBytes::from_string(name), id, settings: settings(&head)?, partitions });
    }
    Ok(Ok(Start { cluster, run_id, topics }))
}

fn settings(row: &sqlx::sqlite::SqliteRow) -> sqlx::Result<TopicSettings> {
    Ok(TopicSettings {
        retention: row.try_get::<Option<i64>, _>(2)?.map(|ms| Duration::from_millis(ms.unsigned_abs())),
        retention_bytes: row.try_get::<Option<i64>, _>(3)?.map(i64::unsigned_abs),
        max_message_bytes: row.try_get(4)?,
    })
}

const PARTITIONS: &str = "
SELECT id, number, start, next, bytes,
  (SELECT max(b.id) FROM batch b WHERE b.id BETWEEN p.id << 43 AND (p.id << 43) + (1 << 43) - 1) AS newest
FROM part p WHERE topic = ?1 ORDER BY number";

async fn partitions(connection: &mut SqliteConnection, topic: &str) -> sqlx::Result<Result<Vec<Arc<Partition>>, String>> {
    let rows = sqlx::query(PARTITIONS).bind(topic).fetch_all(&mut *connection).await?;
    let mut partitions = Vec::with_capacity(rows.len());
    for (expected, row) in (0..).zip(&rows) {
        let (id, number, start, next): (i64, i32, i64, i64) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        let newest: Option<i64> = row.try_get(5)?;
        if number != expected {
            return Ok(Err(format!("topic {topic} lacks partition {expected}")));
        }
        let end = newest.map_or(start, |id| last_offset(id) + 1);
        if end != next || start > next {
            return Ok(Err(format!("partition {number} of topic {topic} ends at {end}, its row says {next}")));
        }
        partitions.push(Arc::new(Partition::new(id, number, start, next, row.try_get(4)?)));
    }
    Ok(Ok(partitions))
}
