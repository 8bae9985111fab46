//! Consumer groups in the classic protocol: members and generations live in memory, committed offsets in the file.
//!
//! After a restart every member is unknown and rejoins; the group continues at its committed offsets.

mod group;
mod member;

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::protocol::StrBytes;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Duration, Instant};

use crate::catalog::lock;
use crate::settings::Limits;
pub(crate) use group::{Group, Phase};
pub(crate) use member::Member;

/// A member's join request.
#[derive(Debug, Clone)]
pub(crate) struct Join {
    pub group: String,
    /// Empty if the member has no id yet.
    pub member: String,
    /// `group.instance.id`: a name that survives the member's restarts.
    pub instance: Option<StrBytes>,
    pub client_id: StrBytes,
    pub client_host: String,
    pub session: Duration,
    pub rebalance: Duration,
    pub protocol_type: StrBytes,
    /// Assignment strategies in order of preference, with the member's subscription for each.
    pub protocols: Vec<(StrBytes, Bytes)>,
    /// Whether a new member first gets its id and then joins with it in a second request (KIP-394).
    pub id_first: bool,
    /// Whether the client understands that it leads but must not assign (KIP-814).
    pub may_skip: bool,
}

/// Answer to a join once the group is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    pub generation: i32,
    pub protocol_type: StrBytes,
    pub protocol: StrBytes,
    pub leader: String,
    pub member: String,
    /// All members with instance id and subscription if this member leads, else empty.
    pub members: Vec<(String, Option<StrBytes>, Bytes)>,
    /// Whether the leader must not assign, because the group is stable.
    pub skip_assignment: bool,
}

/// A refused join; for [`ResponseError::MemberIdRequired`], `member` is the id to join with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JoinRefused {
    pub error: ResponseError,
    pub member: String,
}

pub(crate) type JoinOutcome = Result<Joined, JoinRefused>;

/// A member's assignment and the protocol that computed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Synced {
    pub protocol_type: StrBytes,
    pub protocol: StrBytes,
    pub assignment: Bytes,
}

pub(crate) type SyncOutcome = Result<Synced, ResponseError>;

/// The sender of a group request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Speaker<'a> {
    pub member: &'a str,
    pub generation: i32,
    pub instance: Option<&'a StrBytes>,
}

/// All groups with members or pending member ids.
pub(crate) struct Groups {
    by_name: Mutex<HashMap<String, Group>>,
    /// Wakes the timer when there may be an earlier deadline.
    changed: Notify,
    run_id: String,
    ids: AtomicU64,
    limits: Limits,
    delay: Duration,
}

impl Groups {
    /// `run_id` must differ at every start, so that ids of an earlier run are unknown.
    pub fn new(run_id: String, limits: Limits, delay: Duration) -> Self {
        Self { by_name: Mutex::default(), changed: Notify::new(), run_id, ids: AtomicU64::new(0), limits, delay }
    }

    /// Joins a member; waits until the group is complete.
    pub async fn join(&self, join: Join) -> JoinOutcome {
        let refused = |error| Err(JoinRefused { error, member: join.member.clone() });
        if join.group.is_empty() {
            return refused(ResponseError::InvalidGroupId);
        }
        if !self.limits.session.contains(&join.session) {
            return refused(ResponseError::InvalidSessionTimeout);
        }
        if join.protocols.is_empty() || join.protocol_type.is_empty() {
            return refused(ResponseError::InconsistentGroupProtocol);
        }
        let outcome = {
            let mut groups = lock(&self.by_name);
            if !groups.contains_key(&join.group) {
                if !join.member.is_empty() {
                    return refused(ResponseError::UnknownMemberId);
                }
                if groups.len() >= self.limits.groups {
                    return refused(ResponseError::CoordinatorNotAvailable);
                }
            }
            let group = groups.entry(join.group.clone()).or_insert_with(|| Group::new(self.delay, self.limits.members));
            let name = join.group.clone();
            let outcome = group.join(join, || self.new_id(), Instant::now());
            if group.is_idle() {
                groups.remove(&name);
            }
            outcome
        };
        self.changed.notify_one();
        match outcome {
            Ok(waiting) => waiting
                .await
                .unwrap_or_else(|_| Err(JoinRefused { error: ResponseError::UnknownMemberId, member: String::new() })),
            Err(refused) => Err(refused),
        }
    }

    fn new_id(&self) -> String {
        format!("{}-{}", self.run_id, self.ids.fetch_add(1, Ordering::Relaxed))
    }

    /// Stores the leader's assignments and waits for the caller's own.
    pub async fn sync(
        &self,
        name: &str,
        speaker: Speaker<'_>,
        protocol: (Option<&str>, Option<&str>),
        assignments: Vec<(String, Bytes)>,
    ) -> SyncOutcome {
        let waiting =
            self.with(name, ResponseError::UnknownMemberId, |group| group.sync(speaker, protocol, assignments, Instant::now()))?;
        waiting.await.unwrap_or(Err(ResponseError::RebalanceInProgress))
    }

    /// Renews a member's session; returns an error if it must rejoin because others joined or left.
    pub fn heartbeat(&self, name: &str, speaker: Speaker<'_>) -> Result<(), ResponseError> {
        self.with(name, ResponseError::UnknownMemberId, |group| group.heartbeat(speaker, Instant::now()))
    }

    /// Removes a member at its own request.
    pub fn leave(&self, name: &str, member: &str, instance: Option<&StrBytes>) -> Result<(), ResponseError> {
        let outcome = {
            let mut groups = lock(&self.by_name);
            let group = groups.get_mut(name).ok_or(ResponseError::UnknownMemberId)?;
            let outcome = group.leave(member, instance, Instant::now());
            if group.is_idle() {
                groups.remove(name);
            }
            outcome
        };
        self.changed.notify_one();
        outcome
    }

    /// Checks that the sender may commit offsets: a member in its generation, or a tool while there are no members.
    pub fn may_commit(&self, name: &str, speaker: Speaker<'_>) -> Result<(), ResponseError> {
        let outsider = speaker.generation < 0 && speaker.member.is_empty();
        let mut groups = lock(&self.by_name);
        match groups.get_mut(name) {
            Some(group) if group.has_members() => group.may_commit(speaker, Instant::now()),
            _ if outsider => Ok(()),
            _ => Err(ResponseError::UnknownMemberId),
        }
    }

    /// Reads one group; `None` when it has no members.
    pub fn read<T>(&self, name: &str, f: impl FnOnce(&Group) -> T) -> Option<T> {
        lock(&self.by_name).get(name).filter(|group| group.has_members()).map(f)
    }

    /// Returns name, protocol type and phase of every group with members.
    pub fn list(&self) -> Vec<(String, StrBytes, Phase)> {
        lock(&self.by_name)
            .iter()
            .filter(|(_, group)| group.has_members())
            .map(|(name, group)| (name.clone(), group.protocol_type().clone(), group.phase()))
            .collect()
    }

    /// Ends sessions, rebalances and waits at their deadlines, until the future is dropped.
    pub async fn run_timers(&self) {
        loop {
            let next = {
                let mut groups = lock(&self.by_name);
                let now = Instant::now();
                groups.retain(|_, group| {
                    group.tick(now);
                    !group.is_idle()
                });
                groups.values().filter_map(Group::next_deadline).min()
            };
            let changed = self.changed.notified();
            match next {
                Some(next) => {
                    // Sessions are renewed all the time; checking every 5 ms is enough.
                    let next = next.max(Instant::now() + Duration::from_millis(5));
                    let _ = tokio::time::timeout_at(next, changed).await;
                }
                None => changed.await,
            }
        }
    }

    fn with<T>(
        &self,
        name: &str,
        absent: ResponseError,
        f: impl FnOnce(&mut Group) -> Result<T, ResponseError>,
    ) -> Result<T, ResponseError> {
        if name.is_empty() {
            return Err(ResponseError::InvalidGroupId);
        }
        let outcome = lock(&self.by_name).get_mut(name).ok_or(absent).and_then(f);
        self.changed.notify_one();
        outcome
    }
}

/// Receives an answer once the group is ready.
pub(crate) type Waiting<T> = oneshot::Receiver<T>;
