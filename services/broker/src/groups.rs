//! Consumer groups in the classic protocol: members and generations live in memory, committed offsets in the file.
//!
//! After a restart every member is unknown and rejoins, while the group goes on where its offsets stood.

mod group;
mod member;

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use kafka_protocol::{error::ResponseError, protocol::StrBytes};
use tokio::{
    sync::{Notify, oneshot},
    time::{Duration, Instant},
};

use crate::{catalog::lock, settings::Limits};
pub(crate) use group::{Group, Phase};
pub(crate) use member::Member;

/// A member's wish to join, as the request had it.
#[derive(Debug, Clone)]
pub(crate) struct Join {
    pub group: String,
    /// Empty for a member that has no id yet.
    pub member: String,
    /// `group.instance.id`: a name that survives the member's restarts.
    pub instance: Option<StrBytes>,
    pub client_id: StrBytes,
    pub client_host: String,
    pub session: Duration,
    pub rebalance: Duration,
    pub protocol_type: StrBytes,
    /// Assignment strategies, the preferred one first, with the member's subscription for each.
    pub protocols: Vec<(StrBytes, Bytes)>,
    /// True when a new member gets its id first and joins with it in a second request (KIP-394).
    pub id_first: bool,
    /// True when the client can be told that it leads and need not assign (KIP-814).
    pub may_skip: bool,
}

/// What a member is told when the group is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    pub generation: i32,
    pub protocol_type: StrBytes,
    pub protocol: StrBytes,
    pub leader: String,
    pub member: String,
    /// All members with instance id and subscription for the leader, none for the others.
    pub members: Vec<(String, Option<StrBytes>, Bytes)>,
    /// True when the leader is not to assign: the group is stable.
    pub skip_assignment: bool,
}

/// A refused join; the id is the one to join with for [`ResponseError::MemberIdRequired`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JoinRefused {
    pub error: ResponseError,
    pub member: String,
}

pub(crate) type JoinOutcome = Result<Joined, JoinRefused>;

/// A member's share and the protocol it was computed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Synced {
    pub protocol_type: StrBytes,
    pub protocol: StrBytes,
    pub assignment: Bytes,
}

pub(crate) type SyncOutcome = Result<Synced, ResponseError>;

/// Who speaks: every request of a member names these.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Speaker<'a> {
    pub member: &'a str,
    pub generation: i32,
    pub instance: Option<&'a StrBytes>,
}

/// All groups with members.
pub(crate) struct Groups {
    by_name: Mutex<HashMap<String, Group>>,
    /// Wakes the timer when an earlier deadline may have come up.
    changed: Notify,
    life: String,
    ids: AtomicU64,
    limits: Limits,
    delay: Duration,
}

impl Groups {
    /// `life` must differ at every start: ids of an earlier life have to be unknown.
    pub fn new(life: String, limits: Limits, delay: Duration) -> Self {
        Self { by_name: Mutex::default(), changed: Notify::new(), life, ids: AtomicU64::new(0), limits, delay }
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
        format!("{}-{}", self.life, self.ids.fetch_add(1, Ordering::Relaxed))
    }

    /// Hands in the leader's assignments, and waits for the caller's own.
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

    /// Tells that a member lives; the answer tells it to rejoin when others joined or left.
    pub fn heartbeat(&self, name: &str, speaker: Speaker<'_>) -> Result<(), ResponseError> {
        self.with(name, ResponseError::UnknownMemberId, |group| group.heartbeat(speaker, Instant::now()))
    }

    /// Takes a member out at its own wish.
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

    /// Says whether the speaker may commit offsets: a member in its generation, or anybody while there are no members.
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

    /// Name, protocol type and phase of every group with members.
    pub fn list(&self) -> Vec<(String, StrBytes, Phase)> {
        lock(&self.by_name)
            .iter()
            .filter(|(_, group)| group.has_members())
            .map(|(name, group)| (name.clone(), group.protocol_type().clone(), group.phase()))
            .collect()
    }

    pub fn count(&self) -> usize {
        lock(&self.by_name).len()
    }

    /// Ends sessions, rebalances and waits that are due, until it is dropped.
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
                    // Sessions are prolonged all the time; one look every few milliseconds is enough for any of them.
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

/// Where an answer comes once the group is ready.
pub(crate) type Waiting<T> = oneshot::Receiver<T>;
