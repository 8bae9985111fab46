//! The requests of the classic group protocol, translated to calls of the groups' state machine.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    DescribeGroupsRequest, DescribeGroupsResponse, GroupId, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest,
    JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse, SyncGroupRequest,
    SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Duration;

use super::{Asked, code};
use crate::groups::{Group, Join, Joined, Phase, Speaker};
use crate::storage::read;

fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

pub(super) async fn join(asked: Asked, request: JoinGroupRequest) -> JoinGroupResponse {
    let session = millis(request.session_timeout_ms);
    let join = Join {
        group: request.group_id.to_string(),
        member: request.member_id.to_string(),
        instance: request.group_instance_id,
        client_id: asked.client_id,
        client_host: asked.client_host,
        session,
        // A rebalance must not time out before the member's own session.
        rebalance: millis(request.rebalance_timeout_ms).clamp(session, session.max(Duration::from_hours(1))),
        protocol_type: request.protocol_type,
        protocols: request.protocols.into_iter().map(|p| (p.name, p.metadata)).collect(),
        id_first: asked.version >= 4,
        may_skip: asked.version >= 9,
    };
    match asked.shared.groups.join(join).await {
        Ok(joined) => accepted(joined, asked.version),
        Err(refused) => JoinGroupResponse::default()
            .with_error_code(refused.error.code())
            .with_generation_id(-1)
            .with_protocol_name(if asked.version >= 7 { None } else { Some(StrBytes::default()) })
            .with_member_id(text(refused.member)),
    }
}

fn accepted(joined: Joined, version: i16) -> JoinGroupResponse {
    let member = |(id, instance, metadata): (String, _, _)| {
        let member = JoinGroupResponseMember::default().with_member_id(text(id)).with_metadata(metadata);
        if version >= 5 { member.with_group_instance_id(instance) } else { member }
    };
    JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_type((version >= 7).then_some(joined.protocol_type))
        .with_protocol_name(Some(joined.protocol))
        .with_leader(text(joined.leader))
        .with_member_id(text(joined.member))
        .with_members(joined.members.into_iter().map(member).collect())
        .with_skip_assignment(joined.skip_assignment)
}

fn millis(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

pub(super) async fn sync(asked: Asked, request: SyncGroupRequest) -> SyncGroupResponse {
    let speaker =
        Speaker { member: &request.member_id, generation: request.generation_id, instance: request.group_instance_id.as_ref() };
    let protocol = (request.protocol_type.as_deref(), request.protocol_name.as_deref());
    let assignments = request.assignments.into_iter().map(|a| (a.member_id.to_string(), a.assignment)).collect();
    match asked.shared.groups.sync(&request.group_id, speaker, protocol, assignments).await {
        Ok(synced) => SyncGroupResponse::default()
            .with_protocol_type((asked.version >= 5).then_some(synced.protocol_type))
            .with_protocol_name((asked.version >= 5).then_some(synced.protocol))
            .with_assignment(synced.assignment),
        Err(error) => SyncGroupResponse::default().with_error_code(error.code()),
    }
}

pub(super) async fn heartbeat(asked: Asked, request: HeartbeatRequest) -> HeartbeatResponse {
    let speaker =
        Speaker { member: &request.member_id, generation: request.generation_id, instance: request.group_instance_id.as_ref() };
    HeartbeatResponse::default().with_error_code(code(&asked.shared.groups.heartbeat(&request.group_id, speaker)))
}

pub(super) async fn leave(asked: Asked, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let groups = &asked.shared.groups;
    if request.group_id.is_empty() {
        return LeaveGroupResponse::default().with_error_code(ResponseError::InvalidGroupId.code());
    }
    if asked.version < 3 {
        let outcome = groups.leave(&request.group_id, &request.member_id, None);
        return LeaveGroupResponse::default().with_error_code(code(&outcome));
    }
    let members = request
        .members
        .into_iter()
        .map(|member| {
            let instance = member.group_instance_id;
            let outcome = groups.leave(&request.group_id, &member.member_id, instance.as_ref());
            MemberResponse::default()
                .with_member_id(member.member_id)
                .with_group_instance_id(instance)
                .with_error_code(code(&outcome))
        })
        .collect();
    LeaveGroupResponse::default().with_members(members)
}

/// Lists groups with members and, as empty, those that only have committed offsets.
pub(super) async fn list(asked: Asked, request: ListGroupsRequest) -> ListGroupsResponse {
    let stored = match read::committed_groups(&asked.shared.readers).await {
        Ok(names) => names,
        Err(e) => {
            tracing::error!(error = %e, "reading the groups with committed offsets failed");
            return ListGroupsResponse::default().with_error_code(ResponseError::KafkaStorageError.code());
        }
    };
    let mut groups: BTreeMap<String, (StrBytes, Phase)> =
        stored.into_iter().map(|name| (name, (StrBytes::default(), Phase::Empty))).collect();
    groups.extend(asked.shared.groups.list().into_iter().map(|(name, kind, phase)| (name, (kind, phase))));
    let passes =
        |filter: &[StrBytes], value: &str| filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(value));
    let listed = groups
        .into_iter()
        .filter(|(_, (_, phase))| passes(&request.states_filter, phase.name()))
        .filter(|_| passes(&request.types_filter, "classic"))
        .map(|(name, (kind, phase))| {
            let mut group = ListedGroup::default().with_group_id(GroupId(text(name))).with_protocol_type(kind);
            if asked.version >= 4 {
                group.group_state = StrBytes::from_static_str(phase.name());
            }
            if asked.version >= 5 {
                group.group_type = StrBytes::from_static_str("classic");
            }
            group
        })
        .collect();
    ListGroupsResponse::default().with_groups(listed)
}

pub(super) async fn describe(asked: Asked, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let stored = read::committed_groups(&asked.shared.readers).await.unwrap_or_default();
    let groups = request
        .groups
        .into_iter()
        .map(|id| {
            let known = asked.shared.groups.read(&id, |group| described(group, asked.version));
            let group = known.unwrap_or_else(|| absent(stored.iter().any(|name| *name == *id.0), asked.version));
            group.with_group_id(id)
        })
        .collect();
    DescribeGroupsResponse::default().with_groups(groups)
}

fn described(group: &Group, version: i16) -> DescribedGroup {
    let member = |(id, member): (&String, &crate::groups::Member)| {
        let answer = DescribedGroupMember::default()
            .with_member_id(text(id.clone()))
            .with_client_id(member.client_id.clone())
            .with_client_host(text(member.client_host.clone()))
            .with_member_metadata(member.subscription(group.protocol()))
            .with_member_assignment(member.assignment.clone());
        if version >= 4 { answer.with_group_instance_id(member.instance.clone()) } else { answer }
    };
    DescribedGroup::default()
        .with_group_state(StrBytes::from_static_str(group.phase().name()))
        .with_protocol_type(group.protocol_type().clone())
        .with_protocol_data(group.protocol().clone())
        .with_members(group.members().map(member).collect())
}

/// Describes a group without members: empty if it has committed offsets, else dead, which is an error from version 6 on.
fn absent(stored: bool, version: i16) -> DescribedGroup {
    if stored {
        return DescribedGroup::default().with_group_state(StrBytes::from_static_str(Phase::Empty.name()));
    }
    let dead = DescribedGroup::default().with_group_state(StrBytes::from_static_str("Dead"));
    if version >= 6 { dead.with_error_code(ResponseError::GroupIdNotFound.code()) } else { dead }
}
