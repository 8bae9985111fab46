//! Invalid group requests, and a group's life cycle as its members see it.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    DescribeGroupsRequest, GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, ListGroupsRequest,
    OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::StrBytes;
use minishop_testkit::wait::becomes;
use tempfile::tempdir;

use super::fixture::{Log, settings};
use super::raw::{Raw, topic_name};

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub fn group(name: &str) -> GroupId {
    GroupId(text(name))
}

fn join(name: &str, member: &str) -> JoinGroupRequest {
    JoinGroupRequest::default()
        .with_group_id(group(name))
        .with_member_id(text(member))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(10_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![
            JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(Bytes::from_static(b"topics")),
        ])
}

fn commit(name: &str, member: &str, generation: i32, partition: i32, offset: i64, note: &str) -> OffsetCommitRequest {
    let position = OffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(offset)
        .with_committed_metadata(Some(text(note)));
    OffsetCommitRequest::default()
        .with_group_id(group(name))
        .with_member_id(text(member))
        .with_generation_id_or_member_epoch(generation)
        .with_topics(vec![OffsetCommitRequestTopic::default().with_name(topic_name("t")).with_partitions(vec![position])])
}

async fn commit_code(raw: &mut Raw, request: &OffsetCommitRequest) -> i16 {
    raw.call(8, request).await.topics[0].partitions[0].error_code
}

/// Commits as a tool does, outside any generation.
pub async fn commit_alone(raw: &mut Raw, name: &str, partition: i32, offset: i64) {
    assert_eq!(commit_code(raw, &commit(name, "", -1, partition, offset, "")).await, 0);
}

/// Returns the committed offset of a partition of `t`, −1 if there is none.
pub async fn committed(raw: &mut Raw, name: &str, partition: i32) -> i64 {
    let topic = OffsetFetchRequestTopic::default().with_name(topic_name("t")).with_partition_indexes(vec![partition]);
    let request = OffsetFetchRequest::default().with_group_id(group(name)).with_topics(Some(vec![topic]));
    let answer = raw.call(7, &request).await;
    assert_eq!(answer.error_code, 0);
    answer.topics[0].partitions[0].committed_offset
}

/// Gets an id, joins with it and sends the assignment: a stable group of one.
pub async fn alone(raw: &mut Raw, name: &str) -> (String, i32) {
    let first = raw.call(5, &join(name, "")).await;
    assert_eq!(first.error_code, 79, "a new member is given an id first");
    let joined = raw.call(5, &join(name, &first.member_id)).await;
    assert_eq!((joined.error_code, joined.members.len()), (0, 1));
    let member = joined.member_id.to_string();
    assert_eq!(sync(raw, name, &member, joined.generation_id, &[&member]).await, (0, Bytes::from(member.clone())));
    (member, joined.generation_id)
}

/// Syncs. With `members` it does so as their leader and assigns each its own name.
async fn sync(raw: &mut Raw, name: &str, member: &str, generation: i32, members: &[&str]) -> (i16, Bytes) {
    let answer = raw.call(3, &sync_request(name, member, generation, members)).await;
    (answer.error_code, answer.assignment)
}

fn sync_request(name: &str, member: &str, generation: i32, members: &[&str]) -> SyncGroupRequest {
    let share = |member: &&str| {
        SyncGroupRequestAssignment::default().with_member_id(text(member)).with_assignment(Bytes::from((*member).to_owned()))
    };
    SyncGroupRequest::default()
        .with_group_id(group(name))
        .with_member_id(text(member))
        .with_generation_id(generation)
        .with_assignments(members.iter().map(share).collect())
}

async fn heartbeat(raw: &mut Raw, name: &str, member: &str, generation: i32) -> i16 {
    let request =
        HeartbeatRequest::default().with_group_id(group(name)).with_member_id(text(member)).with_generation_id(generation);
    raw.call(3, &request).await.error_code
}

#[tokio::test]
async fn wrong_joins_are_refused_with_kafkas_codes() {
    let dir = tempdir().unwrap();
    let log = Log::with_topic(&dir).await;
    let mut raw = log.connect().await;
    alone(&mut raw, "g").await;
    let mut other_type = join("g", "");
    other_type.protocol_type = text("connect");
    let mut other_strategy = join("g", "");
    other_strategy.protocols[0].name = text("sticky");
    let rows = [
        ("empty group id", join("", ""), 24),
        ("session of 1 ms", join("g", "").with_session_timeout_ms(1), 26),
        ("session of an hour", join("g", "").with_session_timeout_ms(3_600_000), 26),
        ("negative session", join("g", "").with_session_timeout_ms(-1), 26),
        ("no protocol", join("g", "").with_protocols(vec![]), 23),
        ("other protocol type", other_type, 23),
        ("no common strategy", other_strategy, 23),
        ("unknown member", join("g", "nobody"), 25),
        ("unknown member of an unknown group", join("other", "nobody"), 25),
    ];
    for (what, request, expected) in rows {
        assert_eq!(raw.call(5, &request).await.error_code, expected, "{what}");
    }
    raw.still_works().await;
    log.stop().await;
}

#[tokio::test]
async fn the_51st_member_is_refused() {
    let dir = tempdir().unwrap();
    let log = Log::with_topic(&dir).await;
    let mut raw = log.connect().await;
    for _ in 0..50 {
        assert_eq!(raw.call(5, &join("g", "")).await.error_code, 79);
    }
    assert_eq!(raw.call(5, &join("g", "")).await.error_code, 81);
    assert_eq!(raw.call(5, &join("another", "")).await.error_code, 79);
    log.stop().await;
}

#[tokio::test]
async fn commits_need_a_member_of_the_generation() {
    let dir = tempdir().unwrap();
    let log = Log::with_topic(&dir).await;
    let mut raw = log.connect().await;
    let (member, generation) = alone(&mut raw, "g").await;
    let note = "x".repeat(4_097);
    let rows = [
        ("unknown member", commit("g", "nobody", generation, 0, 1, ""), 25),
        ("a tool while there are members", commit("g", "", -1, 0, 1, ""), 25),
        ("old generation", commit("g", &member, generation - 1, 0, 1, ""), 22),
        ("metadata of 4097 bytes", commit("g", &member, generation, 0, 1, &note), 12),
        ("unknown partition", commit("g", &member, generation, 99, 1, ""), 3),
        ("empty group id", commit("", &member, generation, 0, 1, ""), 24),
        ("a member of a group of an earlier life", commit("former", "m", 3, 0, 1, ""), 25),
        ("metadata of 4096 bytes", commit("g", &member, generation, 0, 7, &note[1..]), 0),
    ];
    for (what, request, expected) in rows {
        assert_eq!(commit_code(&mut raw, &request).await, expected, "{what}");
    }
    assert_eq!(committed(&mut raw, "g", 0).await, 7);
    assert_eq!(committed(&mut raw, "g", 1).await, -1);
    commit_alone(&mut raw, "tool", 2, 5).await;
    assert_eq!(committed(&mut raw, "tool", 2).await, 5);
    log.stop().await;
}

#[tokio::test]
async fn a_newcomer_makes_the_others_rejoin_and_a_leaver_too() {
    let dir = tempdir().unwrap();
    let log = Log::with_topic(&dir).await;
    let (mut a, mut b) = (log.connect().await, log.connect().await);
    let (first, generation) = alone(&mut a, "g").await;
    assert_eq!(heartbeat(&mut a, "g", &first, generation).await, 0);

    let second = b.call(5, &join("g", "")).await.member_id.to_string();
    b.send(5, &join("g", &second)).await;
    becomes("the heartbeat", async || heartbeat(&mut a, "g", &first, generation).await, 27).await;
    let joined_a = a.call(5, &join("g", &first)).await;
    let joined_b: JoinGroupResponse = b.receive(2, 5).await;
    assert_eq!((joined_a.error_code, joined_b.error_code), (0, 0));
    assert_eq!((joined_a.generation_id, joined_b.generation_id), (generation + 1, generation + 1));
    assert_eq!(joined_a.leader, joined_b.leader);
    assert_eq!(joined_a.leader, text(&first), "the leader stays while it is a member");
    assert_eq!((joined_a.members.len(), joined_b.members.len()), (2, 0));

    let generation = generation + 1;
    b.send(3, &sync_request("g", &second, generation, &[])).await;
    assert!(b.stays_silent(Duration::from_millis(50)).await, "answered before the leader assigned");
    assert_eq!(sync(&mut a, "g", &first, generation, &[&first, &second]).await, (0, Bytes::from(first.clone())));
    let synced: kafka_protocol::messages::SyncGroupResponse = b.receive(3, 3).await;
    assert_eq!((synced.error_code, synced.assignment), (0, Bytes::from(second.clone())));

    let leave = LeaveGroupRequest::default().with_group_id(group("g")).with_member_id(text(&second));
    assert_eq!(b.call(1, &leave).await.error_code, 0);
    assert_eq!(b.call(1, &leave).await.error_code, 25);
    assert_eq!(heartbeat(&mut a, "g", &first, generation).await, 27);
    assert_eq!(sync(&mut a, "g", &first, generation, &[]).await.0, 27);
    assert_eq!(a.call(5, &join("g", &first)).await.generation_id, generation + 1);
    log.stop().await;
}

#[tokio::test]
async fn a_silent_member_loses_its_place() {
    let dir = tempdir().unwrap();
    let mut settings = settings(&dir);
    settings.limits.session = Duration::from_millis(100)..=Duration::from_mins(1);
    let log = Log::start(settings).await;
    let (mut a, mut b) = (log.connect().await, log.connect().await);
    let (first, generation) = alone(&mut a, "g").await;
    let quiet = join("g", "").with_session_timeout_ms(200).with_rebalance_timeout_ms(200);
    let second = b.call(5, &quiet).await.member_id;
    b.send(5, &quiet.with_member_id(second)).await;
    becomes("the heartbeat", async || heartbeat(&mut a, "g", &first, generation).await, 27).await;
    assert_eq!(a.call(5, &join("g", &first)).await.generation_id, generation + 1);
    assert_eq!(sync(&mut a, "g", &first, generation + 1, &[&first]).await.0, 0);
    // The second neither syncs nor sends a heartbeat: when its session ends, the first must rejoin.
    becomes("the heartbeat", async || heartbeat(&mut a, "g", &first, generation + 1).await, 27).await;
    assert_eq!(a.call(5, &join("g", &first)).await.members.len(), 1);
    log.stop().await;
}

#[tokio::test]
async fn a_group_of_one_is_assigned_quickly() {
    let dir = tempdir().unwrap();
    let log = Log::start(minishop_broker::Settings::new("127.0.0.1:0".parse().unwrap(), dir.path().join("log"))).await;
    let mut raw = log.connect().await;
    let begun = std::time::Instant::now();
    alone(&mut raw, "g").await;
    assert!(begun.elapsed() < Duration::from_millis(300), "took {:?}", begun.elapsed());
    log.stop().await;
}

#[tokio::test]
async fn a_restarted_static_member_takes_its_own_place() {
    let dir = tempdir().unwrap();
    let log = Log::with_topic(&dir).await;
    let (mut a, mut b) = (log.connect().await, log.connect().await);
    let named = join("g", "").with_group_instance_id(Some(text("one")));
    let before = a.call(5, &named).await;
    assert_eq!((before.error_code, before.generation_id), (0, 1));
    let after = b.call(5, &named).await;
    assert_eq!((after.error_code, after.members.len()), (0, 1));
    assert_ne!(before.member_id, after.member_id);
    let former = HeartbeatRequest::default()
        .with_group_id(group("g"))
        .with_member_id(before.member_id)
        .with_group_instance_id(Some(text("one")))
        .with_generation_id(after.generation_id);
    assert_eq!(a.call(3, &former).await.error_code, 82);
    log.stop().await;
}

#[tokio::test]
async fn groups_are_listed_and_described() {
    let dir = tempdir().unwrap();
    let log = Log::with_topic(&dir).await;
    let mut raw = log.connect().await;
    alone(&mut raw, "live").await;
    commit_alone(&mut raw, "empty", 0, 1).await;
    let listed = raw.call(4, &ListGroupsRequest::default()).await.groups;
    let listed: Vec<_> = listed.iter().map(|group| (group.group_id.as_str(), group.group_state.as_str())).collect();
    assert_eq!(listed, [("empty", "Empty"), ("live", "Stable")]);
    let stable = ListGroupsRequest::default().with_states_filter(vec![text("stable")]);
    assert_eq!(raw.call(4, &stable).await.groups.len(), 1);
    let request = DescribeGroupsRequest::default().with_groups(vec![group("live"), group("empty"), group("none")]);
    let described = raw.call(5, &request).await.groups;
    let states: Vec<_> = described.iter().map(|group| (group.group_state.as_str(), group.members.len())).collect();
    assert_eq!(states, [("Stable", 1), ("Empty", 0), ("Dead", 0)]);
    assert_eq!(described[0].members[0].client_id, text("raw"));
    assert_eq!(described[0].members[0].client_host, text("/127.0.0.1"));
    log.stop().await;
}
