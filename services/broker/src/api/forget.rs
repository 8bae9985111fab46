//! `DeleteGroups` and `OffsetDelete`: delete positions that operators no longer want.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse, OffsetDeleteRequest, OffsetDeleteResponse};

use super::committed::stored;
use super::{Asked, code};
use crate::log::Control;
use crate::shared::Shared;

/// Deletes groups; one with members is refused.
pub(super) async fn groups(asked: Asked, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for id in request.groups_names {
        let outcome = group(&asked.shared, &id).await;
        results.push(DeletableGroupResult::default().with_group_id(id).with_error_code(code(&outcome)));
    }
    DeleteGroupsResponse::default().with_results(results)
}

async fn group(shared: &Shared, id: &str) -> Result<(), ResponseError> {
    if id.is_empty() {
        return Err(ResponseError::InvalidGroupId);
    }
    if shared.groups.read(id, |_| ()).is_some() {
        return Err(ResponseError::NonEmptyGroup);
    }
    let group = id.to_owned();
    let found = shared.control(|reply| Control::Forget { group, partitions: None, reply }).await?;
    found.then_some(()).ok_or(ResponseError::GroupIdNotFound)
}

/// Deletes a group's positions in some partitions, except for topics that a member may still read.
pub(super) async fn offsets(asked: Asked, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let shared = &asked.shared;
    if let Err(error) = known(shared, &request.group_id).await {
        return OffsetDeleteResponse::default().with_error_code(error.code());
    }
    let mut partitions = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let read = |group: &crate::groups::Group| group.members().any(|(_, member)| member.subscribes(&topic.name));
        let subscribed = shared.groups.read(&request.group_id, read).unwrap_or(false);
        let mut answers = Vec::with_capacity(topic.partitions.len());
        for ask in topic.partitions {
            let error = match shared.catalog.partition(&topic.name, ask.partition_index) {
                None => Some(ResponseError::UnknownTopicOrPartition),
                Some(_) if subscribed => Some(ResponseError::GroupSubscribedToTopic),
                Some(partition) => {
                    partitions.push(partition.id);
                    None
                }
            };
            answers.push((ask.partition_index, error));
        }
        topics.push((topic.name, answers));
    }
    let group = request.group_id.to_string();
    let done = if partitions.is_empty() {
        Ok(false)
    } else {
        shared.control(|reply| Control::Forget { group, partitions: Some(partitions), reply }).await
    };
    let answer = |(index, refused): (i32, Option<ResponseError>)| {
        let error = refused.or(done.err());
        OffsetDeleteResponsePartition::default()
            .with_partition_index(index)
            .with_error_code(error.map_or(0, |error| error.code()))
    };
    let topics = topics
        .into_iter()
        .map(|(name, answers)| {
            OffsetDeleteResponseTopic::default().with_name(name).with_partitions(answers.into_iter().map(answer).collect())
        })
        .collect();
    OffsetDeleteResponse::default().with_topics(topics)
}

/// Checks that the group has members or positions.
async fn known(shared: &Shared, id: &str) -> Result<(), ResponseError> {
    let stored = stored(shared, id).await?;
    let known = !stored.is_empty() || shared.groups.read(id, |_| ()).is_some();
    known.then_some(()).ok_or(ResponseError::GroupIdNotFound)
}
