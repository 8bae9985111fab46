//! Static members on the wire (KIP-345): the answers to their requests, independent of any client.

use bytes::{BufMut, Bytes};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest};
use minishop_testkit::wait::becomes;
use tempfile::tempdir;

use super::bad_groups::{group, text};
use super::fixture::Log;
use super::raw::Raw;

/// Returns a subscription to `topics`; `owned` stands for data that differs at each start of a consumer.
fn subscription(topics: &[&str], owned: u8) -> Bytes {
    let mut bytes = Vec::new();
    bytes.put_i16(1);
    bytes.put_i32(i32::try_from(topics.len()).unwrap());
    for topic in topics {
        bytes.put_i16(i16::try_from(topic.len()).unwrap());
        bytes.put_slice(topic.as_bytes());
    }
    bytes.put_i32(1);
    bytes.put_u8(owned);
    bytes.into()
}

fn join(instance: &str, member: &str, subscription: Bytes) -> JoinGroupRequest {
    JoinGroupRequest::default()
        .with_group_id(group("g"))
        .with_member_id(text(member))
        .with_group_instance_id(Some(text(instance)))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(10_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(subscription)])
}

async fn sync(raw: &mut Raw, joined: &JoinGroupResponse, instance: &str, shares: &[(&str, &'static str)]) -> (i16, Bytes) {
    let share = |(member, share): &(&str, &'static str)| {
        SyncGroupRequestAssignment::default().with_member_id(text(member)).with_assignment(Bytes::from_static(share.as_bytes()))
    };
    let request = SyncGroupRequest::default()
        .with_group_id(group("g"))
        .with_member_id(joined.member_id.clone())
        .with_group_instance_id(Some(text(instance)))
        .with_generation_id(joined.generation_id)
        .with_assignments(shares.iter().map(share).collect());
    let answer = raw.call(3, &request).await;
    (answer.error_code, answer.assignment)
}

async fn heartbeat(raw: &mut Raw, joined: &JoinGroupResponse, instance: &str) -> i16 {
    let request = HeartbeatRequest::default()
        .with_group_id(group("g"))
        .with_member_id(joined.member_id.clone())
        .with_group_instance_id(Some(text(instance)))
        .with_generation_id(joined.generation_id);
    raw.call(3, &request).await.error_code
}

/// Creates a stable group of the leader `one` and of `two`.
async fn two(log: &Log) -> (Raw, JoinGroupResponse, Raw, JoinGroupResponse) {
    let (mut a, mut b) = (log.connect().await, log.connect().await);
    let one = a.call(5, &join("one", "", subscription(&["t"], 0))).await;
    assert_eq!(sync(&mut a, &one, "one", &[(one.member_id.as_str(), "alone")]).await.0, 0);
    b.send(5, &join("two", "", subscription(&["t"], 0))).await;
    becomes("the heartbeat", async || heartbeat(&mut a, &one, "one").await, 27).await;
    let one = a.call(5, &join("one", &one.member_id, subscription(&["t"], 1))).await;
    let two: JoinGroupResponse = b.receive(1, 5).await;
    assert_eq!((one.leader.clone(), one.members.len()), (one.member_id.clone(), 2));
    let shares = [(one.member_id.as_str(), "first half"), (two.member_id.as_str(), "second half")];
    assert_eq!(sync(&mut a, &one, "one", &shares).await, (0, Bytes::from_static(b"first half")));
    assert_eq!(sync(&mut b, &two, "two", &[]).await, (0, Bytes::from_static(b"second half")));
    (a, one, b, two)
}

#[tokio::test]
async fn who_is_back_has_its_share_and_the_others_notice_nothing() {
    let dir = tempdir().unwrap();
    let log = Log::with_topic(&dir).await;
    let (mut a, one, mut b, two) = two(&log).await;
    let mut c = log.connect().await;
    let back = c.call(5, &join("two", "", subscription(&["t"], 7))).await;
    assert_eq!((back.error_code, back.generation_id, back.members.len()), (0, one.generation_id, 0));
    assert_eq!(back.leader, one.member_id);
    assert_ne!(back.member_id, two.member_id);
    assert_eq!(sync(&mut c, &back, "two", &[]).await, (0, Bytes::from_static(b"second half")));
    assert_eq!(heartbeat(&mut a, &one, "one").await, 0, "the other was disturbed");
    assert_eq!(heartbeat(&mut b, &two, "two").await, 82, "the former self goes on");
    assert_eq!(b.call(5, &join("two", &two.member_id, subscription(&["t"], 0))).await.error_code, 82);
    log.stop().await;
}

#[tokio::test]
async fn a_leader_that_is_back_does_not_assign() {
    let dir = tempdir().unwrap();
    let log = Log::with_topic(&dir).await;
    let (_a, one, mut b, two) = two(&log).await;
    // Before version 9 the answer cannot say so: it names the former id as leader.
    let mut c = log.connect().await;
    let old = c.call(5, &join("one", "", subscription(&["t"], 3))).await;
    assert_eq!(
        (old.error_code, old.generation_id, old.leader.clone(), old.members.len()),
        (0, one.generation_id, one.member_id, 0)
    );
    assert_eq!(sync(&mut c, &old, "one", &[]).await, (0, Bytes::from_static(b"first half")));
    let mut d = log.connect().await;
    let new = d.call(9, &join("one", "", subscription(&["t"], 4))).await;
    assert_eq!((new.error_code, new.generation_id, new.leader.clone()), (0, one.generation_id, new.member_id.clone()));
    assert_eq!((new.skip_assignment, new.members.len()), (true, 2));
    assert_eq!(sync(&mut d, &new, "one", &[]).await, (0, Bytes::from_static(b"first half")));
    assert_eq!(heartbeat(&mut b, &two, "two").await, 0);
    log.stop().await;
}

#[tokio::test]
async fn who_comes_back_with_another_wish_starts_a_rebalance() {
    let dir = tempdir().unwrap();
    let log = Log::with_topic(&dir).await;
    let (mut a, one, _b, _two) = two(&log).await;
    let mut c = log.connect().await;
    c.send(5, &join("two", "", subscription(&["t", "another"], 0))).await;
    becomes("the heartbeat", async || heartbeat(&mut a, &one, "one").await, 27).await;
    let again = a.call(5, &join("one", &one.member_id, subscription(&["t"], 1))).await;
    assert_eq!((again.error_code, again.generation_id, again.members.len()), (0, one.generation_id + 1, 2));
    let back: JoinGroupResponse = c.receive(1, 5).await;
    assert_eq!((back.error_code, back.generation_id), (0, again.generation_id));
    log.stop().await;
}

#[tokio::test]
async fn an_operator_takes_a_static_member_out_by_its_name() {
    let dir = tempdir().unwrap();
    let log = Log::with_topic(&dir).await;
    let (mut a, one, _b, two) = two(&log).await;
    let mut tool = log.connect().await;
    let named = |instance: &str, member: &str| {
        MemberIdentity::default().with_member_id(text(member)).with_group_instance_id(Some(text(instance)))
    };
    let members = vec![named("nobody", ""), named("two", "somebody else"), named("nobody", &two.member_id), named("two", "")];
    let answer = tool.call(4, &LeaveGroupRequest::default().with_group_id(group("g")).with_members(members)).await;
    let codes: Vec<i16> = answer.members.iter().map(|member| member.error_code).collect();
    assert_eq!(codes, [25, 82, 25, 0]);
    assert_eq!(heartbeat(&mut a, &one, "one").await, 27, "its partitions go to the others");
    log.stop().await;
}
