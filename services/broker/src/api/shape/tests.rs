//! Checks the shapes against the codec's encoding of every request.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ApiKey, BrokerId, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest, DescribeConfigsRequest,
    DescribeGroupsRequest, FetchRequest, FindCoordinatorRequest, GroupId, JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest,
    ListOffsetsRequest, MetadataRequest, OffsetCommitRequest, OffsetFetchRequest, ProduceRequest, SyncGroupRequest, TopicName, *,
};
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::{check, fitting};
use crate::api::VERSIONS;

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn topic() -> TopicName {
    TopicName(text("topic"))
}

fn encoded<Q: Encodable>(request: &Q, version: i16) -> Bytes {
    let mut bytes = BytesMut::new();
    request.encode(&mut bytes, version).unwrap();
    bytes.freeze()
}

/// Returns a request with elements in every array of its version.
fn full(api: ApiKey, version: i16) -> Bytes {
    match api {
        ApiKey::Produce => {
            let partition = PartitionProduceData::default().with_index(1).with_records(Some(Bytes::from_static(b"ab")));
            let topic = TopicProduceData::default().with_name(topic()).with_partition_data(vec![partition; 2]);
            encoded(&ProduceRequest::default().with_topic_data(vec![topic; 2]), version)
        }
        ApiKey::Fetch => encoded(&fetch(version), version),
        ApiKey::ListOffsets => {
            let topic = ListOffsetsTopic::default().with_name(topic()).with_partitions(vec![ListOffsetsPartition::default(); 3]);
            encoded(&ListOffsetsRequest::default().with_topics(vec![topic; 2]), version)
        }
        ApiKey::Metadata => {
            let topic = MetadataRequestTopic::default().with_name(Some(topic()));
            let request = MetadataRequest::default().with_topics(Some(vec![topic; 2]));
            encoded(&request.with_allow_auto_topic_creation(true), version)
        }
        ApiKey::CreateTopics => encoded(&create_topics(), version),
        ApiKey::DeleteTopics if version >= 6 => {
            let state = DeleteTopicState::default().with_name(Some(topic()));
            encoded(&DeleteTopicsRequest::default().with_topics(vec![state; 2]), version)
        }
        ApiKey::DeleteTopics => encoded(&DeleteTopicsRequest::default().with_topic_names(vec![topic(); 2]), version),
        ApiKey::DeleteRecords => {
            let topic =
                DeleteRecordsTopic::default().with_name(topic()).with_partitions(vec![DeleteRecordsPartition::default(); 2]);
            encoded(&DeleteRecordsRequest::default().with_topics(vec![topic; 2]), version)
        }
        ApiKey::DescribeConfigs => {
            let resource = DescribeConfigsResource::default().with_configuration_keys(Some(vec![text("retention.ms"); 2]));
            encoded(&DescribeConfigsRequest::default().with_resources(vec![resource; 2]), version)
        }
        _ => full_of_groups(api, version),
    }
}

fn full_of_groups(api: ApiKey, version: i16) -> Bytes {
    match api {
        ApiKey::OffsetCommit => {
            let partition = OffsetCommitRequestPartition::default().with_committed_metadata(Some(text("note")));
            let topic = OffsetCommitRequestTopic::default().with_name(topic()).with_partitions(vec![partition; 2]);
            encoded(&OffsetCommitRequest::default().with_topics(vec![topic; 2]), version)
        }
        ApiKey::OffsetFetch => encoded(&offset_fetch(version), version),
        ApiKey::FindCoordinator if version >= 4 => {
            encoded(&FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g"); 3]), version)
        }
        ApiKey::FindCoordinator => encoded(&FindCoordinatorRequest::default().with_key(text("g")), version),
        ApiKey::JoinGroup => {
            let protocol = JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(Bytes::from_static(b"m"));
            encoded(&JoinGroupRequest::default().with_protocols(vec![protocol; 2]), version)
        }
        ApiKey::SyncGroup => {
            let share = SyncGroupRequestAssignment::default().with_member_id(text("m")).with_assignment(Bytes::from_static(b"a"));
            encoded(&SyncGroupRequest::default().with_assignments(vec![share; 2]), version)
        }
        ApiKey::LeaveGroup if version >= 3 => {
            let member = MemberIdentity::default().with_member_id(text("m"));
            encoded(&LeaveGroupRequest::default().with_members(vec![member; 2]), version)
        }
        ApiKey::DescribeGroups => encoded(&DescribeGroupsRequest::default().with_groups(vec![GroupId(text("g")); 2]), version),
        ApiKey::DeleteGroups => encoded(&DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text("g")); 2]), version),
        ApiKey::OffsetDelete => {
            let partitions = vec![OffsetDeleteRequestPartition::default(); 3];
            let topic = OffsetDeleteRequestTopic::default().with_name(topic()).with_partitions(partitions);
            encoded(&OffsetDeleteRequest::default().with_topics(vec![topic; 2]), version)
        }
        ApiKey::ListGroups if version >= 4 => {
            let request = ListGroupsRequest::default().with_states_filter(vec![text("Stable"); 2]);
            let types = if version >= 5 { vec![text("classic")] } else { vec![] };
            encoded(&request.with_types_filter(types), version)
        }
        _ => empty(api, version),
    }
}

fn fetch(version: i16) -> FetchRequest {
    let mut topic_ask = FetchTopic::default().with_partitions(vec![FetchPartition::default(); 3]);
    let mut forgotten = ForgottenTopic::default().with_partitions(vec![1, 2]);
    if version < 13 {
        topic_ask.topic = topic();
        forgotten.topic = topic();
    }
    let mut request = FetchRequest::default().with_topics(vec![topic_ask; 2]);
    if version < 15 {
        request.replica_id = BrokerId(-1);
    }
    if version >= 7 {
        request.forgotten_topics_data = vec![forgotten; 2];
    }
    request
}

fn offset_fetch(version: i16) -> OffsetFetchRequest {
    if version >= 8 {
        let topic = OffsetFetchRequestTopics::default().with_name(topic()).with_partition_indexes(vec![1, 2]);
        let group = OffsetFetchRequestGroup::default().with_group_id(GroupId(text("g"))).with_topics(Some(vec![topic; 2]));
        return OffsetFetchRequest::default().with_groups(vec![group; 2]);
    }
    let topic = OffsetFetchRequestTopic::default().with_name(topic()).with_partition_indexes(vec![1, 2]);
    OffsetFetchRequest::default().with_topics(Some(vec![topic; 2]))
}

fn create_topics() -> CreateTopicsRequest {
    let assignment = CreatableReplicaAssignment::default().with_broker_ids(vec![BrokerId(1); 2]);
    let config = CreatableTopicConfig::default().with_name(text("retention.ms")).with_value(Some(text("1")));
    let topic = CreatableTopic::default().with_name(topic()).with_assignments(vec![assignment; 2]).with_configs(vec![config; 2]);
    CreateTopicsRequest::default().with_topics(vec![topic; 2])
}

/// Returns an empty request.
fn empty(api: ApiKey, version: i16) -> Bytes {
    match api {
        ApiKey::Produce => encoded(&ProduceRequest::default(), version),
        ApiKey::Fetch => encoded(&FetchRequest::default(), version),
        ApiKey::ListOffsets => encoded(&ListOffsetsRequest::default(), version),
        ApiKey::Metadata => encoded(&MetadataRequest::default().with_allow_auto_topic_creation(true), version),
        ApiKey::OffsetCommit => encoded(&OffsetCommitRequest::default(), version),
        ApiKey::OffsetFetch => encoded(&OffsetFetchRequest::default(), version),
        ApiKey::FindCoordinator => encoded(&FindCoordinatorRequest::default(), version),
        ApiKey::JoinGroup => encoded(&JoinGroupRequest::default(), version),
        ApiKey::Heartbeat => encoded(&HeartbeatRequest::default(), version),
        ApiKey::LeaveGroup => encoded(&LeaveGroupRequest::default(), version),
        ApiKey::SyncGroup => encoded(&SyncGroupRequest::default(), version),
        ApiKey::DescribeGroups => encoded(&DescribeGroupsRequest::default(), version),
        ApiKey::ListGroups => encoded(&ListGroupsRequest::default(), version),
        ApiKey::DeleteGroups => encoded(&DeleteGroupsRequest::default(), version),
        ApiKey::OffsetDelete => encoded(&OffsetDeleteRequest::default(), version),
        ApiKey::ApiVersions => encoded(&ApiVersionsRequest::default(), version),
        ApiKey::CreateTopics => encoded(&CreateTopicsRequest::default(), version),
        ApiKey::DeleteTopics => encoded(&DeleteTopicsRequest::default(), version),
        ApiKey::DeleteRecords => encoded(&DeleteRecordsRequest::default(), version),
        ApiKey::InitProducerId => encoded(&InitProducerIdRequest::default(), version),
        ApiKey::DescribeConfigs => encoded(&DescribeConfigsRequest::default(), version),
        ApiKey::DescribeCluster => encoded(&DescribeClusterRequest::default(), version),
        other => panic!("{other:?} is spoken but not tested"),
    }
}

#[test]
fn every_request_of_every_version_fits_its_shape() {
    for (api, min, max) in VERSIONS {
        for version in min..=max {
            for body in [empty(api, version), full(api, version)] {
                assert_eq!(check(api, version, &body), Ok(()), "{api:?} version {version}: {body:?}");
            }
        }
    }
}

#[test]
fn a_cut_or_lengthened_request_fits_no_shape() {
    for (api, min, max) in VERSIONS {
        for version in min..=max {
            let body = full(api, version);
            for length in 0..body.len() {
                assert_eq!(check(api, version, &body[..length]), Err(()), "{api:?} version {version} cut at {length}");
            }
            let longer = [&body[..], &[0]].concat();
            assert_eq!(check(api, version, &longer), Err(()), "{api:?} version {version} with a byte more");
        }
    }
}

#[test]
fn a_count_above_the_bytes_that_are_there_is_refused() {
    // DescribeGroups version 0 is one array of texts.
    for count in [1, 100, i32::MAX, -2, i32::MIN] {
        assert_eq!(check(ApiKey::DescribeGroups, 0, &count.to_be_bytes()), Err(()), "count {count}");
    }
    assert_eq!(check(ApiKey::DescribeGroups, 0, &(-1_i32).to_be_bytes()), Ok(()), "null is the decoder's to judge");
    // Version 5 is flexible: a count of four billion in five bytes.
    assert_eq!(check(ApiKey::DescribeGroups, 5, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0]), Err(()));
    let many = [&200_000_i32.to_be_bytes()[..], &vec![0; 400_000]].concat();
    assert_eq!(check(ApiKey::DescribeGroups, 0, &many), Err(()), "more elements than any client needs");
}

/// The body that librdkafka 2.12.1 sends for the metadata of all topics when it may create topics: captured on the wire in
/// version 13, and taken from its source for earlier versions.
fn librdkafkas_request_for_all_topics(version: i16) -> Vec<u8> {
    let (count, create, cluster, of_topics, tags) = ([0; 4], 1, 0, 0, 0);
    let flags = if version <= 10 { vec![create, cluster, of_topics] } else { vec![create, of_topics] };
    [&count[..], &flags, &[tags]].concat()
}

#[test]
fn librdkafkas_request_for_all_topics_is_read_without_what_it_leaves_behind() {
    let (_, _, newest) = VERSIONS.iter().find(|(api, ..)| *api == ApiKey::Metadata).unwrap();
    for version in 9..=*newest {
        let sent = librdkafkas_request_for_all_topics(version);
        assert_eq!(check(ApiKey::Metadata, version, &sent), Err(()), "version {version} fits as it is: no exception is needed");
        let read = fitting(ApiKey::Metadata, version, Bytes::from(sent.clone())).unwrap();
        let wanted = MetadataRequest::default().with_topics(None).with_allow_auto_topic_creation(true);
        assert_eq!(read, encoded(&wanted, version), "version {version}");

        let mut others = vec![[&sent[..], &[0]].concat(), [&[1], &sent[1..]].concat()];
        others.extend((1..4).map(|at| sent.iter().enumerate().map(|(n, byte)| if n == at { 7 } else { *byte }).collect()));
        for other in others {
            assert_eq!(fitting(ApiKey::Metadata, version, Bytes::from(other.clone())), Err(()), "version {version}: {other:?}");
        }
    }
    let older = Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(fitting(ApiKey::Metadata, 8, older), Err(()), "older versions have no compact lists");
    let elsewhere = Bytes::from_static(&[0, 0, 0, 0, 0]);
    assert_eq!(fitting(ApiKey::ListGroups, 3, elsewhere), Err(()), "no other request is sent so");
}
