//! The state machine of one consumer group.
//!
//! `Joining` collects members until all have (re)joined or the rebalance timeout drops the rest; then a generation
//! begins in `Syncing`, where the leader's assignments are awaited; with them the group is `Stable` until a member
//! joins, leaves, changes or expires. Everything here is synchronous: time comes in, answers go out through channels.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use kafka_protocol::{error::ResponseError, protocol::StrBytes};
use tokio::{
    sync::oneshot,
    time::{Duration, Instant},
};

use super::{
    Join, JoinOutcome, JoinRefused, Joined, Member, Speaker, SyncOutcome, Synced, Waiting,
};

/// Longest that an id handed out to a new member holds up a rebalance.
const PENDING: Duration = Duration::from_secs(30);
/// How often a newcomer may start the first wait of an empty group again.
const RESTARTS: u32 = 4;

/// Where a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Empty,
    /// Members that have not rejoined by `deadline` are dropped; with all present it ends at `settled` or later.
    Joining {
        deadline: Instant,
        settled: Instant,
        last_settled: Instant,
    },
    /// The leader's assignments are awaited until `deadline`.
    Syncing {
        deadline: Instant,
    },
    Stable,
}

impl Phase {
    /// Kafka's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Joining { .. } => "PreparingRebalance",
            Self::Syncing { .. } => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// One consumer group with members.
#[derive(Debug)]
pub(crate) struct Group {
    phase: Phase,
    generation: i32,
    protocol_type: StrBytes,
    protocol: StrBytes,
    leader: String,
    members: BTreeMap<String, Member>,
    /// Ids handed out to members that have not joined with them yet, and when they lapse.
    pending: HashMap<String, Instant>,
    delay: Duration,
    max_members: usize,
}

impl Group {
    pub fn new(delay: Duration, max_members: usize) -> Self {
        Self {
            phase: Phase::Empty,
            generation: 0,
            protocol_type: StrBytes::default(),
            protocol: StrBytes::default(),
            leader: String::new(),
            members: BTreeMap::new(),
            pending: HashMap::new(),
            delay,
            max_members,
        }
    }

    /// True when nothing is left to remember.
    pub fn is_idle(&self) -> bool {
        self.members.is_empty() && self.pending.is_empty()
    }

    pub fn has_members(&self) -> bool {
        !self.members.is_empty()
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    pub fn protocol_type(&self) -> &StrBytes {
        &self.protocol_type
    }

    pub fn protocol(&self) -> &StrBytes {
        &self.protocol
    }

    pub fn members(&self) -> impl Iterator<Item = (&String, &Member)> {
        self.members.iter()
    }

    /// Takes a member in. The answer comes through the channel once the group is complete.
    pub fn join(
        &mut self,
        mut join: Join,
        new_id: impl Fn() -> String,
        now: Instant,
    ) -> Result<Waiting<JoinOutcome>, JoinRefused> {
        let refused = |error, member: &str| {
            Err(JoinRefused {
                error,
                member: member.to_owned(),
            })
        };
        if !self.agrees(&join) {
            return refused(ResponseError::InconsistentGroupProtocol, &join.member);
        }
        let holder = join
            .instance
            .as_ref()
            .and_then(|instance| self.holder(instance));
        if join.member.is_empty() {
            if holder.is_none() && self.members.len() + self.pending.len() >= self.max_members {
                return refused(ResponseError::GroupMaxSizeReached, "");
            }
            join.member = if join.client_id.is_empty() {
                new_id()
            } else {
                format!("{}-{}", join.client_id, new_id())
            };
            if let Some(old) = holder {
                self.replace(&old, &join.member);
            } else if join.id_first && join.instance.is_none() {
                self.pending
                    .insert(join.member.clone(), now + join.session.min(PENDING));
                return refused(ResponseError::MemberIdRequired, &join.member);
            }
        } else if holder.is_some_and(|holder| holder != join.member) {
            return refused(ResponseError::FencedInstanceId, &join.member);
        } else if self.pending.remove(&join.member).is_none()
            && !self.members.contains_key(&join.member)
        {
            return refused(ResponseError::UnknownMemberId, &join.member);
        }
        Ok(self.admit(join, now))
    }

    fn admit(&mut self, join: Join, now: Instant) -> Waiting<JoinOutcome> {
        let (sender, waiting) = oneshot::channel();
        let id = join.member.clone();
        let known = self.members.get(&id);
        let changed = known.is_none_or(|member| member.protocols != join.protocols);
        let leads = self.leader == id;
        if self.members.is_empty() {
            self.protocol_type = join.protocol_type.clone();
        }
        match self.members.get_mut(&id) {
            Some(member) => member.update(join, now),
            None => drop(self.members.insert(id.clone(), Member::new(join, now))),
        }
        let repeat = match self.phase {
            Phase::Joining { .. } => false,
            // A repeated request whose answer was lost; the leader's own rejoin asks for a new assignment.
            Phase::Syncing { .. } => !changed,
            Phase::Stable => !changed && !leads,
            Phase::Empty => false,
        };
        if repeat {
            let _ = sender.send(Ok(self.joined(&id)));
            return waiting;
        }
        if let Some(member) = self.members.get_mut(&id) {
            member.join = Some(sender);
        }
        self.start_joining(now);
        self.try_complete(now);
        waiting
    }

    /// The same protocol type as the others and a strategy that all of them know.
    fn agrees(&self, join: &Join) -> bool {
        let others = || {
            self.members
                .iter()
                .filter(|(id, _)| **id != join.member)
                .map(|(_, member)| member)
        };
        others().next().is_none()
            || self.protocol_type == join.protocol_type
                && join
                    .protocols
                    .iter()
                    .any(|(name, _)| others().all(|member| member.speaks(name)))
    }

    fn holder(&self, instance: &StrBytes) -> Option<String> {
        self.members
            .iter()
            .find(|(_, member)| member.instance.as_ref() == Some(instance))
            .map(|(id, _)| id.clone())
    }

    /// A restarted static member takes the place of its former self, whose requests are refused from now on.
    fn replace(&mut self, old: &str, new: &str) {
        if let Some(mut member) = self.members.remove(old) {
            let error = ResponseError::FencedInstanceId;
            member.answer_join(Err(JoinRefused {
                error,
                member: old.to_owned(),
            }));
            member.answer_sync(Err(error));
            self.members.insert(new.to_owned(), member);
            if self.leader == old {
                new.clone_into(&mut self.leader);
            }
        }
    }

    fn start_joining(&mut self, now: Instant) {
        let timeout = self
            .members
            .values()
            .map(|member| member.rebalance)
            .max()
            .unwrap_or_default();
        match &mut self.phase {
            // Others that start at the same time share the first rebalance.
            Phase::Joining {
                settled,
                last_settled,
                ..
            } => {
                if *settled > now {
                    *settled = (now + self.delay).min(*last_settled);
                }
            }
            Phase::Empty => {
                let (settled, last_settled) = (now + self.delay, now + self.delay * RESTARTS);
                self.phase = Phase::Joining {
                    deadline: now + timeout,
                    settled,
                    last_settled,
                };
            }
            Phase::Syncing { .. } | Phase::Stable => {
                self.phase = Phase::Joining {
                    deadline: now + timeout,
                    settled: now,
                    last_settled: now,
                };
                for member in self.members.values_mut() {
                    member.answer_sync(Err(ResponseError::RebalanceInProgress));
                }
            }
        }
    }

    fn try_complete(&mut self, now: Instant) {
        let Phase::Joining {
            deadline, settled, ..
        } = self.phase
        else {
            return;
        };
        let complete =
            self.pending.is_empty() && self.members.values().all(|member| member.join.is_some());
        if complete && now >= settled {
            self.begin_generation(now);
        } else if now >= deadline {
            self.members.retain(|_, member| member.join.is_some());
            self.begin_generation(now);
        }
    }

    fn begin_generation(&mut self, now: Instant) {
        self.generation = self.generation.wrapping_add(1).max(1);
        if !self.members.contains_key(&self.leader) {
            self.leader = self.members.keys().next().cloned().unwrap_or_default();
        }
        self.protocol = self.choose_protocol();
        let timeout = self
            .members
            .values()
            .map(|member| member.rebalance)
            .max()
            .unwrap_or_default();
        self.phase = if self.members.is_empty() {
            Phase::Empty
        } else {
            Phase::Syncing {
                deadline: now + timeout,
            }
        };
        let answers: Vec<_> = self.members.keys().map(|id| self.joined(id)).collect();
        for (member, answer) in self.members.values_mut().zip(answers) {
            member.assignment = Bytes::new();
            member.alive(now);
            member.answer_join(Ok(answer));
        }
    }

    /// Among the strategies that all members know, the one that most of them prefer.
    fn choose_protocol(&self) -> StrBytes {
        let common = |name: &StrBytes| self.members.values().all(|member| member.speaks(name));
        let mut votes: Vec<(StrBytes, usize)> = Vec::new();
        for member in self.members.values() {
            if let Some((name, _)) = member.protocols.iter().find(|(name, _)| common(name)) {
                match votes.iter_mut().find(|(voted, _)| voted == name) {
                    Some((_, count)) => *count += 1,
                    None => votes.push((name.clone(), 1)),
                }
            }
        }
        votes
            .into_iter()
            .max_by_key(|(_, count)| *count)
            .map(|(name, _)| name)
            .unwrap_or_default()
    }

    fn joined(&self, id: &str) -> Joined {
        let members = if id == self.leader {
            let listed = |(id, member): (&String, &Member)| {
                (
                    id.clone(),
                    member.instance.clone(),
                    member.subscription(&self.protocol),
                )
            };
            self.members.iter().map(listed).collect()
        } else {
            Vec::new()
        };
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            member: id.to_owned(),
            members,
        }
    }

    /// Takes the leader's assignments and answers the caller once they are there.
    pub fn sync(
        &mut self,
        speaker: Speaker<'_>,
        (protocol_type, protocol): (Option<&str>, Option<&str>),
        assignments: Vec<(String, Bytes)>,
        now: Instant,
    ) -> Result<Waiting<SyncOutcome>, ResponseError> {
        self.check(speaker)?;
        let other =
            |given: Option<&str>, own: &StrBytes| given.is_some_and(|given| given != own.as_str());
        if other(protocol_type, &self.protocol_type) || other(protocol, &self.protocol) {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        let (sender, waiting) = oneshot::channel();
        match self.phase {
            Phase::Empty => return Err(ResponseError::UnknownMemberId),
            Phase::Joining { .. } => return Err(ResponseError::RebalanceInProgress),
            Phase::Syncing { .. } => {
                if let Some(member) = self.members.get_mut(speaker.member) {
                    member.alive(now);
                    member.sync = Some(sender);
                }
                if speaker.member == self.leader {
                    self.assign(assignments, now);
                }
            }
            Phase::Stable => {
                if let Some(member) = self.members.get_mut(speaker.member) {
                    member.alive(now);
                    let assignment = member.assignment.clone();
                    let _ = sender.send(Ok(self.synced(assignment)));
                }
            }
        }
        Ok(waiting)
    }

    fn assign(&mut self, assignments: Vec<(String, Bytes)>, now: Instant) {
        let mut shares: HashMap<String, Bytes> = assignments.into_iter().collect();
        self.phase = Phase::Stable;
        let (protocol_type, protocol) = (self.protocol_type.clone(), self.protocol.clone());
        for (id, member) in &mut self.members {
            member.assignment = shares.remove(id).unwrap_or_default();
            if member.sync.is_some() {
                member.alive(now);
                let (protocol_type, protocol) = (protocol_type.clone(), protocol.clone());
                let assignment = member.assignment.clone();
                member.answer_sync(Ok(Synced {
                    protocol_type,
                    protocol,
                    assignment,
                }));
            }
        }
    }

    fn synced(&self, assignment: Bytes) -> Synced {
        Synced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment,
        }
    }

    pub fn heartbeat(&mut self, speaker: Speaker<'_>, now: Instant) -> Result<(), ResponseError> {
        self.check(speaker)?;
        if let Some(member) = self.members.get_mut(speaker.member) {
            member.alive(now);
        }
        match self.phase {
            Phase::Joining { .. } => Err(ResponseError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    /// Lets members of this generation commit, also while others rejoin: they finish what they had.
    pub fn may_commit(&mut self, speaker: Speaker<'_>, now: Instant) -> Result<(), ResponseError> {
        if speaker.generation < 0 {
            return Err(ResponseError::UnknownMemberId);
        }
        self.check(speaker)?;
        if let Some(member) = self.members.get_mut(speaker.member) {
            member.alive(now);
        }
        match self.phase {
            Phase::Syncing { .. } => Err(ResponseError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    pub fn leave(
        &mut self,
        member: &str,
        instance: Option<&StrBytes>,
        now: Instant,
    ) -> Result<(), ResponseError> {
        let id = match instance.and_then(|instance| self.holder(instance)) {
            Some(holder) if !member.is_empty() && holder != member => {
                return Err(ResponseError::FencedInstanceId);
            }
            Some(holder) => holder,
            None => member.to_owned(),
        };
        if self.pending.remove(&id).is_some() {
            self.try_complete(now);
            return Ok(());
        }
        self.remove(&id, now).ok_or(ResponseError::UnknownMemberId)
    }

    fn remove(&mut self, id: &str, now: Instant) -> Option<()> {
        let mut gone = self.members.remove(id)?;
        let error = ResponseError::UnknownMemberId;
        gone.answer_join(Err(JoinRefused {
            error,
            member: id.to_owned(),
        }));
        gone.answer_sync(Err(error));
        if self.members.is_empty() {
            self.phase = Phase::Empty;
            return Some(());
        }
        self.start_joining(now);
        self.try_complete(now);
        Some(())
    }

    /// Known, in this generation, and not replaced by a restarted self.
    fn check(&self, speaker: Speaker<'_>) -> Result<(), ResponseError> {
        if let Some(holder) = speaker.instance.and_then(|instance| self.holder(instance))
            && holder != speaker.member
        {
            return Err(ResponseError::FencedInstanceId);
        }
        if !self.members.contains_key(speaker.member) {
            return Err(ResponseError::UnknownMemberId);
        }
        if speaker.generation != self.generation {
            return Err(ResponseError::IllegalGeneration);
        }
        Ok(())
    }

    /// Does what is due: lapsed ids, expired sessions, a rebalance that is complete or has lasted too long.
    pub fn tick(&mut self, now: Instant) {
        self.pending.retain(|_, lapses| *lapses > now);
        let expired = |(id, member): (&String, &Member)| {
            (!member.waits() && member.expires <= now).then(|| id.clone())
        };
        let mut gone: Vec<String> = self.members.iter().filter_map(expired).collect();
        if let Phase::Syncing { deadline } = self.phase
            && deadline <= now
        {
            gone.push(self.leader.clone());
        }
        for id in gone {
            tracing::debug!(member = %id, "a group member gave no sign of life and was taken out");
            self.remove(&id, now);
        }
        self.try_complete(now);
    }

    /// When [`Group::tick`] has something to do next.
    pub fn next_deadline(&self) -> Option<Instant> {
        let sessions = self
            .members
            .values()
            .filter(|member| !member.waits())
            .map(|member| member.expires);
        let phase = match self.phase {
            Phase::Joining {
                deadline, settled, ..
            } => {
                let complete = self.pending.is_empty()
                    && self.members.values().all(|member| member.join.is_some());
                Some(if complete {
                    settled.min(deadline)
                } else {
                    deadline
                })
            }
            Phase::Syncing { deadline } => Some(deadline),
            Phase::Empty | Phase::Stable => None,
        };
        sessions
            .chain(self.pending.values().copied())
            .chain(phase)
            .min()
    }
}
