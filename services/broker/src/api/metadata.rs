//! `Metadata`, `DescribeCluster` and `FindCoordinator`: one broker, which leads and coordinates everything.

use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic};
use kafka_protocol::messages::{
    BrokerId, DescribeClusterRequest, DescribeClusterResponse, FindCoordinatorRequest, FindCoordinatorResponse, MetadataRequest,
    MetadataResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::Asked;
use crate::catalog::Topic;
use crate::shared::Shared;

/// The only broker's id.
const SELF: BrokerId = BrokerId(1);

pub(super) async fn metadata(asked: Asked, request: MetadataRequest) -> MetadataResponse {
    let shared = &asked.shared;
    let topics = match request.topics {
        // Version 0 has no null list; an empty one requests all topics.
        Some(topics) if asked.version > 0 || !topics.is_empty() => {
            topics.iter().map(|ask| named(shared, ask, asked.version)).collect()
        }
        _ => shared.catalog.all().iter().map(|topic| known(topic, asked.version)).collect(),
    };
    MetadataResponse::default()
        .with_brokers(vec![
            MetadataResponseBroker::default()
                .with_node_id(SELF)
                .with_host(shared.host.clone())
                .with_port(i32::from(shared.addr.port())),
        ])
        .with_cluster_id((asked.version >= 2).then(|| shared.cluster.clone()))
        .with_controller_id(SELF)
        .with_topics(topics)
}

/// Describes a requested topic. A missing one is not created: a misspelt name must not become a topic.
fn named(shared: &Shared, ask: &MetadataRequestTopic, version: i16) -> MetadataResponseTopic {
    let found = match &ask.name {
        Some(name) => shared.catalog.get(name).ok_or(ResponseError::UnknownTopicOrPartition),
        None => shared.catalog.by_id(ask.topic_id).ok_or(ResponseError::UnknownTopicId),
    };
    match found {
        Ok(topic) => known(&topic, version),
        Err(error) => MetadataResponseTopic::default()
            .with_error_code(error.code())
            .with_name(ask.name.clone().or_else(|| (version < 12).then(TopicName::default)))
            .with_topic_id(ask.topic_id),
    }
}

fn known(topic: &Arc<Topic>, version: i16) -> MetadataResponseTopic {
    let partitions = topic
        .partitions
        .iter()
        .map(|partition| {
            MetadataResponsePartition::default()
                .with_partition_index(partition.number)
                .with_leader_id(SELF)
                .with_leader_epoch(if version >= 7 { 0 } else { -1 })
                .with_replica_nodes(vec![SELF])
                .with_isr_nodes(vec![SELF])
        })
        .collect();
    let answer = MetadataResponseTopic::default().with_name(Some(TopicName(topic.name.clone()))).with_partitions(partitions);
    if version >= 10 { answer.with_topic_id(topic.id) } else { answer }
}

pub(super) async fn cluster(asked: Asked, _request: DescribeClusterRequest) -> DescribeClusterResponse {
    let shared = &asked.shared;
    DescribeClusterResponse::default().with_cluster_id(shared.cluster.clone()).with_controller_id(SELF).with_brokers(vec![
        DescribeClusterBroker::default()
            .with_broker_id(SELF)
            .with_host(shared.host.clone())
            .with_port(i32::from(shared.addr.port())),
    ])
}

/// Returns this broker for groups and transactions alike; transactions are refused when they begin.
pub(super) async fn coordinator(asked: Asked, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let (host, port) = (asked.shared.host.clone(), i32::from(asked.shared.addr.port()));
    if asked.version < 4 {
        return FindCoordinatorResponse::default().with_node_id(SELF).with_host(host).with_port(port);
    }
    let each = |key: StrBytes| Coordinator::default().with_key(key).with_node_id(SELF).with_host(host.clone()).with_port(port);
    FindCoordinatorResponse::default().with_coordinators(request.coordinator_keys.into_iter().map(each).collect())
}
