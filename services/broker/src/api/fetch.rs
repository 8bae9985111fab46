//! `Fetch`: a long poll over several partitions, answered from memory where possible, within a memory budget.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse};
use tokio::sync::Notify;
use tokio::time::{Duration, Instant};

use super::{Asked, Pending, Unfit};
use crate::batch;
use crate::catalog::{Partition, Topic, lock};
use crate::shared::Shared;
use crate::storage::read;

/// Bytes of an answer besides its records, for each partition and once for the whole; generous, so that the limit holds.
const OVERHEAD: usize = 256;

pub(super) fn begin(asked: Asked, request: FetchRequest) -> Result<Pending, Unfit> {
    // Fetch sessions would save a local client nothing; without one every request names all its partitions.
    if request.session_id != 0 && request.session_epoch > 0 {
        let gone = FetchResponse::default().with_error_code(ResponseError::FetchSessionIdNotFound.code());
        let reply = asked.encode(asked.version, &gone)?;
        return Ok(Box::pin(async { Ok(Some(reply)) }));
    }
    Ok(Box::pin(async move { fetch(asked, request).await }))
}

/// One requested partition, with its topic if that exists.
struct Wanted<'a> {
    topic: Option<Arc<Topic>>,
    ask: &'a FetchPartition,
}

impl Wanted<'_> {
    fn partition(&self) -> Option<&Arc<Partition>> {
        self.topic.as_ref()?.partition(self.ask.partition).filter(|partition| !partition.gone())
    }

    fn has_news(&self) -> bool {
        self.partition().is_none_or(|partition| self.ask.fetch_offset != partition.next())
    }
}

async fn fetch(asked: Asked, request: FetchRequest) -> Result<Option<super::Reply>, Unfit> {
    let shared = Arc::clone(&asked.shared);
    let by_id = asked.version >= 13;
    let wanted: Vec<Vec<Wanted>> = request
        .topics
        .iter()
        .map(|t| {
            let topic = if by_id { shared.catalog.by_id(t.topic_id) } else { shared.catalog.get(&t.topic) };
            t.partitions.iter().map(|ask| Wanted { topic: topic.clone(), ask }).collect()
        })
        .collect();
    let asks = || wanted.iter().flatten();
    let limits = &shared.settings.limits;
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(limits.fetch_wait);
    let deadline = Instant::now() + wait;
    let names: usize = request.topics.iter().map(|t| t.topic.len()).sum();
    let overhead = OVERHEAD * (asks().count() + 1) + names;
    let limit = usize::try_from(request.max_bytes).unwrap_or(0).min(limits.fetch_bytes.saturating_sub(overhead));
    let enough = usize::try_from(request.min_bytes).unwrap_or(0).min(limit);
    let watch = Watch::start(asks().filter_map(Wanted::partition));
    loop {
        let due = Instant::now() >= deadline || asks().next().is_none();
        if due || asks().any(Wanted::has_news) {
            let share = u32::try_from(limit.max(1) + overhead).unwrap_or(u32::MAX);
            let memory = Arc::clone(&shared.memory).acquire_many_owned(share).await.ok();
            let (responses, found) = read_all(&shared, &request, &wanted, limit, by_id).await;
            if due || found.bytes >= enough.max(1) || found.failed {
                let mut reply = asked.encode(asked.version, &FetchResponse::default().with_responses(responses))?;
                reply.memory = memory.and_then(|mut held| held.split(reply.bytes.len().min(held.num_permits())));
                return Ok(Some(reply));
            }
        }
        // Woken or not, the loop checks again.
        let _ = tokio::time::timeout_at(deadline, watch.changed()).await;
    }
}

/// Wakes a fetch when one of its partitions grows or is deleted; ends when dropped.
struct Watch {
    changed: Arc<Notify>,
    partitions: Vec<Arc<Partition>>,
}

impl Watch {
    fn start<'a>(partitions: impl Iterator<Item = &'a Arc<Partition>>) -> Self {
        let watch = Self { changed: Arc::new(Notify::new()), partitions: partitions.cloned().collect() };
        for partition in &watch.partitions {
            partition.watch(&watch.changed);
        }
        watch
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        for partition in &self.partitions {
            partition.unwatch(&self.changed);
        }
    }
}

#[derive(Default)]
struct Found {
    bytes: usize,
    failed: bool,
}

async fn read_all(
    shared: &Shared,
    request: &FetchRequest,
    wanted: &[Vec<Wanted<'_>>],
    limit: usize,
    by_id: bool,
) -> (Vec<FetchableTopicResponse>, Found) {
    let mut found = Found::default();
    let mut responses = Vec::with_capacity(wanted.len());
    for (topic, asks) in request.topics.iter().zip(wanted) {
        let mut partitions = Vec::with_capacity(asks.len());
        for want in asks {
            let room = limit.saturating_sub(found.bytes);
            let data = read_one(shared, want, room, found.bytes == 0, by_id).await;
            found.bytes += data.records.as_ref().map_or(0, Bytes::len);
            found.failed |= data.error_code != 0;
            partitions.push(data);
        }
        let mut response = FetchableTopicResponse::default().with_partitions(partitions);
        if by_id {
            response.topic_id = topic.topic_id;
        } else {
            response.topic = topic.topic.clone();
        }
        responses.push(response);
    }
    (responses, found)
}

async fn read_one(shared: &Shared, want: &Wanted<'_>, room: usize, first: bool, by_id: bool) -> PartitionData {
    let data = PartitionData::default()
        .with_partition_index(want.ask.partition)
        .with_aborted_transactions(Some(Vec::new()))
        .with_preferred_read_replica(BrokerId(-1));
    let Some(partition) = want.partition() else {
        let error = match want.topic {
            None if by_id => ResponseError::UnknownTopicId,
            _ => ResponseError::UnknownTopicOrPartition,
        };
        return data.with_error_code(error.code()).with_high_watermark(-1).with_last_stable_offset(-1);
    };
    let (start, next, offset) = (partition.start(), partition.next(), want.ask.fetch_offset);
    let data = data.with_high_watermark(next).with_last_stable_offset(next).with_log_start_offset(start);
    if offset < start || offset > next {
        return data.with_error_code(ResponseError::OffsetOutOfRange.code());
    }
    let room = usize::try_from(want.ask.partition_max_bytes).unwrap_or(0).min(room);
    if offset == next || room == 0 && !first {
        return data.with_records(Some(Bytes::new()));
    }
    match records(shared, partition, offset..next, room, first).await {
        Ok(records) => data.with_records(Some(records)),
        Err(error) => data.with_error_code(error.code()).with_records(Some(Bytes::new())),
    }
}

/// Reads whole batches, from memory if they are new enough. A damaged batch ends the result; as the first it is the error.
async fn records(
    shared: &Shared,
    partition: &Partition,
    range: Range<i64>,
    room: usize,
    first: bool,
) -> Result<Bytes, ResponseError> {
    let tail = lock(&partition.tail).read(range.clone(), room, first);
    if let Some(found) = tail {
        return Ok(join(found));
    }
    let stored = match read::batches(&shared.readers, partition, range.clone(), room, first).await {
        Ok(stored) => stored,
        Err(e) => {
            tracing::error!(partition = partition.number, offset = range.start, error = %e, "reading the event log failed");
            return Err(ResponseError::KafkaStorageError);
        }
    };
    let good = stored.iter().take_while(|stored| batch::intact(&stored.bytes)).count();
    if let Some(bad) = stored.get(good) {
        let end = bad.last;
        tracing::error!(partition = partition.number, offset = range.start, "the batch that ends at offset {end} is damaged");
        if good == 0 {
            return Err(ResponseError::KafkaStorageError);
        }
    }
    Ok(join(stored.into_iter().take(good).map(|stored| stored.bytes).collect()))
}

fn join(mut batches: Vec<Bytes>) -> Bytes {
    if batches.len() == 1 {
        return batches.remove(0);
    }
    let mut all = BytesMut::with_capacity(batches.iter().map(Bytes::len).sum());
    for bytes in batches {
        all.extend_from_slice(&bytes);
    }
    all.freeze()
}
