//! `CreateTopics`, `DeleteTopics`, `DeleteRecords` and `DescribeConfigs`.

mod config;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult};
use kafka_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, DeleteRecordsRequest, DeleteRecordsResponse, DeleteTopicsRequest,
    DeleteTopicsResponse, DescribeConfigsRequest, DescribeConfigsResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::{Asked, code};
use crate::log::Control;
use crate::settings::TopicSettings;
use crate::shared::Shared;
use config::Entry;

pub(super) async fn create_topics(asked: Asked, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let mut results = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let twice = request.topics.iter().filter(|other| other.name == topic.name).count() > 1;
        let outcome = if twice {
            Err((ResponseError::InvalidRequest, "the request names the topic twice".to_owned()))
        } else {
            create(&asked.shared, topic, request.validate_only).await
        };
        results.push(created(topic.name.clone(), outcome, asked.version));
    }
    CreateTopicsResponse::default().with_topics(results)
}

/// Topic id, partition count and settings of a new topic; no id if the request only validates.
type Created = (Option<Uuid>, i32, TopicSettings);

async fn create(shared: &Shared, topic: &CreatableTopic, validate_only: bool) -> Result<Created, (ResponseError, String)> {
    let partitions = partitions(topic, shared.settings.partitions)?;
    let mut settings = shared.settings.topic;
    shared.may_create(&topic.name, partitions).map_err(|error| (error, refusal(error, shared)))?;
    for entry in &topic.configs {
        config::apply(&mut settings, &entry.name, entry.value.as_deref())
            .map_err(|reason| (ResponseError::InvalidConfig, reason))?;
    }
    if validate_only {
        return Ok((None, partitions, settings));
    }
    match shared.create_topic(&topic.name, partitions, settings).await {
        Ok(made) => Ok((Some(made.id), partitions, settings)),
        Err(error) => Err((error, refusal(error, shared))),
    }
}

/// Returns the partition count, or that of a manual assignment, whose replicas must all be on the one broker.
fn partitions(topic: &CreatableTopic, usual: i32) -> Result<i32, (ResponseError, String)> {
    if topic.assignments.is_empty() {
        if !matches!(topic.replication_factor, 1 | -1) {
            let error = ResponseError::InvalidReplicationFactor;
            return Err((error, "there is one broker, so the replication factor must be 1".to_owned()));
        }
        return Ok(if topic.num_partitions == -1 { usual } else { topic.num_partitions });
    }
    let mut numbers: Vec<i32> = topic.assignments.iter().map(|a| a.partition_index).collect();
    numbers.sort_unstable();
    let lawful = numbers.iter().zip(0..).all(|(number, expected)| *number == expected)
        && topic.assignments.iter().all(|a| a.broker_ids.iter().map(|id| id.0).eq([1]));
    if !lawful {
        let error = ResponseError::InvalidReplicaAssignment;
        return Err((error, "assign partitions 0, 1, 2 … to broker 1".to_owned()));
    }
    i32::try_from(numbers.len()).map_err(|_| (ResponseError::InvalidPartitions, "too many partitions".to_owned()))
}

fn refusal(error: ResponseError, shared: &Shared) -> String {
    match error {
        ResponseError::InvalidTopicException => "a name has 1 to 249 characters of A-Z a-z 0-9 . _ -, not . or ..".to_owned(),
        ResponseError::InvalidPartitions => {
            format!("1 to {} partitions", shared.settings.limits.partitions)
        }
        ResponseError::TopicAlreadyExists => "the topic already exists".to_owned(),
        other => other.to_string(),
    }
}

fn created(name: TopicName, outcome: Result<Created, (ResponseError, String)>, version: i16) -> CreatableTopicResult {
    let mut result = CreatableTopicResult::default().with_name(name);
    match outcome {
        Err((error, reason)) => {
            result.error_code = error.code();
            result.error_message = Some(StrBytes::from_string(reason));
            if version >= 5 {
                result.num_partitions = -1;
                result.replication_factor = -1;
            }
        }
        Ok((id, partitions, settings)) => {
            if version >= 7 {
                result.topic_id = id.unwrap_or_default();
            }
            if version >= 5 {
                result.num_partitions = partitions;
                result.replication_factor = 1;
                result.configs = Some(config::entries(&settings).into_iter().map(made_with).collect());
            }
        }
    }
    result
}

fn made_with(entry: Entry) -> CreatableTopicConfigs {
    CreatableTopicConfigs::default()
        .with_name(StrBytes::from_static_str(entry.name))
        .with_value(Some(StrBytes::from_string(entry.value)))
        .with_read_only(true)
        .with_config_source(config::SOURCE_TOPIC)
}

pub(super) async fn delete_topics(asked: Asked, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let named = |name| DeleteTopicState::default().with_name(Some(name));
    let asks = if asked.version >= 6 { request.topics } else { request.topic_names.into_iter().map(named).collect() };
    let mut responses = Vec::with_capacity(asks.len());
    for ask in asks {
        let catalog = &asked.shared.catalog;
        let found = match &ask.name {
            Some(name) => catalog.get(name).ok_or(ResponseError::UnknownTopicOrPartition),
            None => catalog.by_id(ask.topic_id).ok_or(ResponseError::UnknownTopicId),
        };
        let name = found.as_ref().map_or_else(|_| ask.name.clone(), |t| Some(TopicName(t.name.clone())));
        let id = found.as_ref().map_or(ask.topic_id, |topic| topic.id);
        let outcome = match found {
            Ok(topic) => asked.shared.control(|reply| Control::DeleteTopic { topic, reply }).await,
            Err(error) => Err(error),
        };
        let mut result = DeletableTopicResult::default().with_name(name).with_error_code(code(&outcome));
        if asked.version >= 6 {
            result.topic_id = id;
        }
        responses.push(result);
    }
    DeleteTopicsResponse::default().with_responses(responses)
}

/// Hides the records below an offset at once; −1 means all records.
pub(super) async fn delete_records(asked: Asked, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for ask in topic.partitions {
            let outcome = hide(&asked.shared, &topic.name, ask.partition_index, ask.offset).await;
            partitions.push(
                DeleteRecordsPartitionResult::default()
                    .with_partition_index(ask.partition_index)
                    .with_low_watermark(outcome.unwrap_or(-1))
                    .with_error_code(code(&outcome)),
            );
        }
        topics.push(DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions));
    }
    DeleteRecordsResponse::default().with_topics(topics)
}

async fn hide(shared: &Shared, topic: &str, number: i32, before: i64) -> Result<i64, ResponseError> {
    let partition = shared.catalog.partition(topic, number).ok_or(ResponseError::UnknownTopicOrPartition)?;
    let before = if before == -1 { partition.next() } else { before };
    if before < 0 || before > partition.next() {
        return Err(ResponseError::OffsetOutOfRange);
    }
    shared.control(|reply| Control::DeleteRecords { partition, before, reply }).await
}

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

pub(super) async fn describe_configs(asked: Asked, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let results = request.resources.into_iter().map(|resource| described(&asked, resource)).collect();
    DescribeConfigsResponse::default().with_results(results)
}

fn described(asked: &Asked, resource: DescribeConfigsResource) -> DescribeConfigsResult {
    let name = resource.resource_name.clone();
    let entries = match resource.resource_type {
        TOPIC => match asked.shared.catalog.get(&name) {
            Some(topic) => Ok((config::entries(&topic.settings), config::SOURCE_TOPIC)),
            None => Err(ResponseError::UnknownTopicOrPartition),
        },
        BROKER if matches!(name.as_str(), "1" | "") => {
            Ok((config::broker_entries(&asked.shared.settings), config::SOURCE_BROKER))
        }
        _ => Err(ResponseError::InvalidRequest),
    };
    let result = DescribeConfigsResult::default().with_resource_type(resource.resource_type).with_resource_name(name);
    let (entries, source) = match entries {
        Ok(found) => found,
        Err(error) => return result.with_error_code(error.code()),
    };
    let wanted = resource.configuration_keys;
    let asked_for = |entry: &Entry| wanted.as_ref().is_none_or(|keys| keys.iter().any(|key| **key == *entry.name));
    let configs = entries
        .into_iter()
        .filter(asked_for)
        .map(|entry| {
            let mut answer = DescribeConfigsResourceResult::default()
                .with_name(StrBytes::from_static_str(entry.name))
                .with_value(Some(StrBytes::from_string(entry.value)))
                .with_read_only(true)
                .with_config_source(source);
            if asked.version >= 3 {
                answer.config_type = entry.kind;
            }
            answer
        })
        .collect();
    result.with_configs(configs)
}
