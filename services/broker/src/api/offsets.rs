//! `ListOffsets`: the first and next offset of a partition, and offsets by time.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};

use super::{Asked, code};
use crate::shared::Shared;
use crate::storage::read;
use crate::storage::read::Found;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
/// Earliest offset on local disk; there is no other storage.
const EARLIEST_LOCAL: i64 = -4;

pub(super) async fn list(asked: Asked, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for ask in topic.partitions {
            let outcome = find(&asked.shared, &topic.name, ask.partition_index, ask.timestamp).await;
            let found = outcome.ok().flatten();
            let mut answer = ListOffsetsPartitionResponse::default()
                .with_partition_index(ask.partition_index)
                .with_error_code(code(&outcome))
                .with_offset(found.map_or(-1, |found| found.offset))
                .with_timestamp(found.map_or(-1, |found| found.timestamp));
            if asked.version >= 4 {
                answer.leader_epoch = if found.is_some() { 0 } else { -1 };
            }
            partitions.push(answer);
        }
        topics.push(ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    ListOffsetsResponse::default().with_topics(topics)
}

/// Finds an offset. A time yields the first offset of its batch, so a consumer that starts there may see older records.
async fn find(shared: &Shared, topic: &str, number: i32, timestamp: i64) -> Result<Option<Found>, ResponseError> {
    let partition = shared.catalog.partition(topic, number).ok_or(ResponseError::UnknownTopicOrPartition)?;
    let bound = |offset| Ok(Some(Found { offset, timestamp: -1 }));
    let read = match timestamp {
        LATEST => return bound(partition.next()),
        EARLIEST | EARLIEST_LOCAL => return bound(partition.start()),
        MAX_TIMESTAMP => read::newest_time(&shared.readers, &partition).await,
        time if time >= 0 => read::at_time(&shared.readers, &partition, time).await,
        _ => return Err(ResponseError::UnsupportedVersion),
    };
    read.map(|found| found.map(|f| Found { offset: f.offset.max(partition.start()), ..f })).map_err(|e| {
        tracing::error!(partition = number, error = %e, "searching the event log by time failed");
        ResponseError::KafkaStorageError
    })
}
