//! The state machine of one consumer group.
//!
//! `Joining` collects members until all have (re)joined or the rebalance timeout drops the rest. Then a generation begins
//! in `Syncing`, which waits for the leader's assignments. With them the group is `Stable` until a member joins, leaves,
//! changes or expires. Everything here is synchronous: time is a parameter, answers go out through channels.

mod joining;

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::protocol::StrBytes;
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant};

use super::{JoinRefused, Member, Speaker, SyncOutcome, Synced, Waiting};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Empty,
    /// Members that have not rejoined by `deadline` are dropped. With all present the phase ends at `ends`, which
    /// each newcomer delays, at most to `ends_latest`.
    Joining {
        deadline: Instant,
        ends: Instant,
        ends_latest: Instant,
    },
    /// Waits for the leader's assignments until `deadline`.
    Syncing {
        deadline: Instant,
    },
    Stable,
}

impl Phase {
    /// Returns Kafka's name for the phase.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Joining { .. } => "PreparingRebalance",
            Self::Syncing { .. } => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// One consumer group.
#[derive(Debug)]
pub(crate) struct Group {
    phase: Phase,
    generation: i32,
    protocol_type: StrBytes,
    protocol: StrBytes,
    leader: String,
    members: BTreeMap<String, Member>,
    /// Ids given to members that have not joined with them yet, and when they expire.
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

    /// Returns whether the group has neither members nor pending ids.
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

    /// Stores the leader's assignments; answers the caller once they are there.
    pub fn sync(
        &mut self,
        speaker: Speaker<'_>,
        (protocol_type, protocol): (Option<&str>, Option<&str>),
        assignments: Vec<(String, Bytes)>,
        now: Instant,
    ) -> Result<Waiting<SyncOutcome>, ResponseError> {
        self.check(speaker)?;
        let other = |given: Option<&str>, own: &StrBytes| given.is_some_and(|given| given != own.as_str());
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
                member.answer_sync(Ok(Synced { protocol_type, protocol, assignment }));
            }
        }
    }

    fn synced(&self, assignment: Bytes) -> Synced {
        Synced { protocol_type: self.protocol_type.clone(), protocol: self.protocol.clone(), assignment }
    }

    pub fn heartbeat(&mut self, speaker: Speaker<'_>, now: Instant) -> Result<(), ResponseError> {
        self.hear(speaker, now)?;
        match self.phase {
            Phase::Joining { .. } => Err(ResponseError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    /// Lets members of this generation commit, also while others rejoin: they finish the records they had.
    pub fn may_commit(&mut self, speaker: Speaker<'_>, now: Instant) -> Result<(), ResponseError> {
        if speaker.generation < 0 {
            return Err(ResponseError::UnknownMemberId);
        }
        self.hear(speaker, now)?;
        match self.phase {
            Phase::Syncing { .. } => Err(ResponseError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    pub fn leave(&mut self, member: &str, instance: Option<&StrBytes>, now: Instant) -> Result<(), ResponseError> {
        let id = match instance {
            Some(instance) => self.holder(instance).ok_or(ResponseError::UnknownMemberId)?,
            None => member.to_owned(),
        };
        if !member.is_empty() && id != member {
            return Err(ResponseError::FencedInstanceId);
        }
        if self.pending.remove(&id).is_some() {
            self.try_complete(now);
            return Ok(());
        }
        self.remove(&id, now).ok_or(ResponseError::UnknownMemberId)
    }

    fn remove(&mut self, id: &str, now: Instant) -> Option<()> {
        let mut gone = self.members.remove(id)?;
        let error = ResponseError::UnknownMemberId;
        gone.answer_join(Err(JoinRefused { error, member: id.to_owned() }));
        gone.answer_sync(Err(error));
        if self.members.is_empty() {
            self.phase = Phase::Empty;
            return Some(());
        }
        self.start_joining(now);
        self.try_complete(now);
        Some(())
    }

    /// Renews the session of the sender, if it passes [`Group::check`].
    fn hear(&mut self, speaker: Speaker<'_>, now: Instant) -> Result<(), ResponseError> {
        self.check(speaker)?;
        if let Some(member) = self.members.get_mut(speaker.member) {
            member.alive(now);
        }
        Ok(())
    }

    /// Checks that the sender is known, in this generation, and not replaced by a restarted static member.
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

    /// Handles expired ids and sessions, and a rebalance that is complete or timed out.
    pub fn tick(&mut self, now: Instant) {
        self.pending.retain(|_, lapses| *lapses > now);
        let expired = |(id, member): (&String, &Member)| (!member.waits() && member.expires <= now).then(|| id.clone());
        let mut gone: Vec<String> = self.members.iter().filter_map(expired).collect();
        if let Phase::Syncing { deadline } = self.phase
            && deadline <= now
        {
            gone.push(self.leader.clone());
        }
        for id in gone {
            tracing::debug!(member.id = %id, "a group member timed out; removing it");
            self.remove(&id, now);
        }
        self.try_complete(now);
    }

    /// Returns when [`Group::tick`] next has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        let sessions = self.members.values().filter(|member| !member.waits()).map(|member| member.expires);
        let phase = match self.phase {
            Phase::Joining { deadline, ends, .. } => {
                let complete = self.pending.is_empty() && self.members.values().all(|member| member.join.is_some());
                Some(if complete { ends.min(deadline) } else { deadline })
            }
            Phase::Syncing { deadline } => Some(deadline),
            Phase::Empty | Phase::Stable => None,
        };
        sessions.chain(self.pending.values().copied()).chain(phase).min()
    }
}
