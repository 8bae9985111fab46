//! The retention task: removes batches that are too old, above the size limit, deleted, or left by a deleted topic.

use std::sync::Arc;

use sqlx::Row;
use tokio_util::sync::CancellationToken;

use crate::catalog::Partition;
use crate::log::Control;
use crate::settings::TopicSettings;
use crate::shared::Shared;
use crate::storage::{MAX_OFFSET, last_offset, row_id};

/// Checks all partitions at every interval until `stop`.
pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut interval = tokio::time::interval(shared.settings.retention_interval);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The first `tick` returns at once and is skipped, so that a start does not wait for a pass.
    interval.tick().await;
    let passes = async {
        loop {
            interval.tick().await;
            pass(&shared).await;
        }
    };
    tokio::select! {
        () = passes => {}
        () = stop.cancelled() => {}
    }
}

/// Runs one pass. Each removal is a small step, so that the writer handles produce requests in between.
async fn pass(shared: &Shared) {
    while let Ok(true) = shared.control(|reply| Control::Sweep { reply }).await {}
    for topic in shared.catalog.all() {
        for partition in &topic.partitions {
            // The oldest batch alone shows whether there is anything to remove.
            let mut look = 1;
            while let Some(before) = surplus(shared, partition, &topic.settings, look).await {
                look = LOOK;
                let partition = Arc::clone(partition);
                if shared.control(|reply| Control::Remove { partition, before, reply }).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Returns the first offset to keep if some of the `look` oldest batches can be removed.
async fn surplus(shared: &Shared, partition: &Partition, settings: &TopicSettings, look: i64) -> Option<i64> {
    match oldest(shared, partition, settings, look).await {
        Ok(found) => found,
        Err(e) => {
            tracing::warn!(error = %e, "retention could not read the event log");
            None
        }
    }
}

const OLDEST: &str = "
SELECT id, length(bytes), at < CAST(unixepoch('subsec') * 1000 AS INTEGER) - ?3 AS old
FROM batch WHERE id BETWEEN ?1 AND ?2 ORDER BY id LIMIT ?4";
/// Batches examined per removal.
const LOOK: i64 = 64;

async fn oldest(shared: &Shared, partition: &Partition, settings: &TopicSettings, look: i64) -> sqlx::Result<Option<i64>> {
    let age = settings.retention.map(|age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
    let rows = sqlx::query(OLDEST)
        .bind(row_id(partition.id, 0))
        .bind(row_id(partition.id, MAX_OFFSET))
        .bind(age)
        .bind(look)
        .fetch_all(&shared.readers)
        .await?;
    let keep = settings.retention_bytes.map_or(i64::MAX, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    let mut left = partition.bytes();
    let mut before = None;
    for row in rows {
        let end = last_offset(row.try_get(0)?) + 1;
        let newest = end == partition.next();
        let deleted = end <= partition.start();
        let old = row.try_get::<Option<bool>, _>(2)?.unwrap_or(false);
        if !(deleted || !newest && (old || left > keep)) {
            break;
        }
        left -= row.try_get::<i64, _>(1)?;
        before = Some(end);
    }
    Ok(before)
}
