//! `OffsetCommit` and `OffsetFetch`.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::oneshot;

use super::Asked;
use crate::groups::Speaker;
use crate::log::{Command, Position, Positions};
use crate::shared::Shared;
use crate::storage::read;
use crate::storage::read::Committed;

pub(super) async fn commit(asked: Asked, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let shared = &asked.shared;
    let speaker = Speaker {
        member: &request.member_id,
        generation: request.generation_id_or_member_epoch,
        instance: request.group_instance_id.as_ref(),
    };
    let allowed = if request.group_id.is_empty() {
        Err(ResponseError::InvalidGroupId)
    } else {
        shared.groups.may_commit(&request.group_id, speaker)
    };
    let mut reached = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for ask in &topic.partitions {
            let outcome = allowed.and_then(|()| position(shared, &topic.name, ask));
            partitions.push((ask.partition_index, outcome.as_ref().err().copied()));
            reached.extend(outcome);
        }
        topics.push((topic.name.clone(), partitions));
    }
    let failed = if reached.is_empty() { None } else { store(shared, &request.group_id, reached).await.err() };
    let topics = topics
        .into_iter()
        .map(|(name, partitions)| {
            let each = |(index, refused): (i32, Option<ResponseError>)| {
                OffsetCommitResponsePartition::default()
                    .with_partition_index(index)
                    .with_error_code(refused.or(failed).map_or(0, |error| error.code()))
            };
            OffsetCommitResponseTopic::default().with_name(name).with_partitions(partitions.into_iter().map(each).collect())
        })
        .collect();
    OffsetCommitResponse::default().with_topics(topics)
}

fn position(shared: &Shared, topic: &str, ask: &OffsetCommitRequestPartition) -> Result<Position, ResponseError> {
    let metadata = ask.committed_metadata.as_deref().unwrap_or_default();
    if metadata.len() > shared.settings.limits.offset_metadata_bytes {
        return Err(ResponseError::OffsetMetadataTooLarge);
    }
    let partition = shared.catalog.partition(topic, ask.partition_index);
    Ok(Position {
        partition: partition.ok_or(ResponseError::UnknownTopicOrPartition)?,
        offset: ask.committed_offset,
        leader_epoch: ask.committed_leader_epoch,
        metadata: metadata.to_owned(),
    })
}

async fn store(shared: &Shared, group: &str, reached: Vec<Position>) -> Result<(), ResponseError> {
    let (reply, outcome) = oneshot::channel();
    let command = Command::Positions(Positions { group: group.to_owned(), reached, reply });
    shared.writer.send(command).await.map_err(|_| ResponseError::KafkaStorageError)?;
    outcome.await.unwrap_or(Err(ResponseError::KafkaStorageError))
}

/// Positions by topic, in the form that all versions share.
type Answers = Vec<(TopicName, Vec<(i32, Option<Committed>)>)>;

pub(super) async fn fetch(asked: Asked, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let shared = &asked.shared;
    if asked.version >= 8 {
        let mut groups = Vec::with_capacity(request.groups.len());
        for group in request.groups {
            let wanted = group.topics.map(|t| t.into_iter().map(|t| (t.name, t.partition_indexes)).collect());
            let outcome = positions(shared, &group.group_id, wanted).await;
            let answer = OffsetFetchResponseGroup::default().with_group_id(group.group_id);
            groups.push(match outcome {
                Ok(answers) => answer.with_topics(answers.into_iter().map(new_topic).collect()),
                Err(error) => answer.with_error_code(error.code()),
            });
        }
        return OffsetFetchResponse::default().with_groups(groups);
    }
    let wanted = request.topics.map(|t| t.into_iter().map(|t| (t.name, t.partition_indexes)).collect());
    match positions(shared, &request.group_id, wanted).await {
        Ok(answers) => {
            let topics = answers.into_iter().map(|topic| old_topic(topic, asked.version)).collect();
            OffsetFetchResponse::default().with_topics(topics)
        }
        Err(error) if asked.version >= 2 => OffsetFetchResponse::default().with_error_code(error.code()),
        Err(_) => OffsetFetchResponse::default(),
    }
}

/// Reads all positions of a group.
pub(super) async fn stored(shared: &Shared, group: &str) -> Result<Vec<Committed>, ResponseError> {
    if group.is_empty() {
        return Err(ResponseError::InvalidGroupId);
    }
    read::committed(&shared.readers, group).await.map_err(|e| {
        tracing::error!(error = %e, "reading committed offsets failed");
        ResponseError::KafkaStorageError
    })
}

async fn positions(shared: &Shared, group: &str, wanted: Option<Vec<(TopicName, Vec<i32>)>>) -> Result<Answers, ResponseError> {
    let rows = stored(shared, group).await?;
    let mut by_topic: BTreeMap<String, BTreeMap<i32, Committed>> = BTreeMap::new();
    for row in rows {
        by_topic.entry(row.topic.clone()).or_default().insert(row.number, row);
    }
    let Some(wanted) = wanted else {
        let all = |(name, rows): (String, BTreeMap<i32, Committed>)| {
            let rows = rows.into_iter().map(|(number, row)| (number, Some(row))).collect();
            (TopicName(StrBytes::from_string(name)), rows)
        };
        return Ok(by_topic.into_iter().map(all).collect());
    };
    let pick = |(name, numbers): (TopicName, Vec<i32>)| {
        let rows = by_topic.get(name.as_str());
        let each = |number| (number, rows.and_then(|rows| rows.get(&number)).cloned());
        (name, numbers.into_iter().map(each).collect())
    };
    Ok(wanted.into_iter().map(pick).collect())
}

fn old_topic((name, rows): (TopicName, Vec<(i32, Option<Committed>)>), version: i16) -> OffsetFetchResponseTopic {
    let each = |(number, row): (i32, Option<Committed>)| {
        let answer = OffsetFetchResponsePartition::default()
            .with_partition_index(number)
            .with_committed_offset(row.as_ref().map_or(-1, |row| row.offset));
        let epoch = row.as_ref().map_or(-1, |row| row.leader_epoch);
        let answer = if version >= 5 { answer.with_committed_leader_epoch(epoch) } else { answer };
        answer.with_metadata(Some(StrBytes::from_string(row.map(|row| row.metadata).unwrap_or_default())))
    };
    OffsetFetchResponseTopic::default().with_name(name).with_partitions(rows.into_iter().map(each).collect())
}

fn new_topic((name, rows): (TopicName, Vec<(i32, Option<Committed>)>)) -> OffsetFetchResponseTopics {
    let each = |(number, row): (i32, Option<Committed>)| {
        OffsetFetchResponsePartitions::default()
            .with_partition_index(number)
            .with_committed_offset(row.as_ref().map_or(-1, |row| row.offset))
            .with_committed_leader_epoch(row.as_ref().map_or(-1, |row| row.leader_epoch))
            .with_metadata(Some(StrBytes::from_string(row.map(|row| row.metadata).unwrap_or_default())))
    };
    OffsetFetchResponseTopics::default().with_name(name).with_partitions(rows.into_iter().map(each).collect())
}
