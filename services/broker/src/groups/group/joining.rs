//! A group from its first join to the start of a generation.

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::protocol::StrBytes;
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant};

use super::{Group, Phase};
use crate::groups::{Join, JoinOutcome, JoinRefused, Joined, Member, Waiting};

/// How long a pending id of a new member may delay a rebalance.
const PENDING: Duration = Duration::from_secs(30);
/// Limit of an empty group's first wait, in multiples of the delay.
const RESTARTS: u32 = 4;

impl Group {
    /// Adds a member or lets it rejoin. The answer comes through the channel once the group is complete.
    pub fn join(
        &mut self,
        mut join: Join,
        new_id: impl Fn() -> String,
        now: Instant,
    ) -> Result<Waiting<JoinOutcome>, JoinRefused> {
        let refused = |error, member: &str| Err(JoinRefused { error, member: member.to_owned() });
        if !self.agrees(&join) {
            return refused(ResponseError::InconsistentGroupProtocol, &join.member);
        }
        let holder = join.instance.as_ref().and_then(|instance| self.holder(instance));
        if join.member.is_empty() {
            if holder.is_none() && self.members.len() + self.pending.len() >= self.max_members {
                return refused(ResponseError::GroupMaxSizeReached, "");
            }
            join.member = if join.client_id.is_empty() { new_id() } else { format!("{}-{}", join.client_id, new_id()) };
            if let Some(old) = holder {
                let same =
                    self.phase == Phase::Stable && self.members.get(&old).is_some_and(|member| member.requests_same(&join));
                self.replace(&old, &join.member);
                if same {
                    return Ok(self.take_back(&old, join, now));
                }
                // The others do not know the new id, so it needs a new assignment even with an unchanged request.
                return Ok(self.admit(join, true, now));
            } else if join.id_first && join.instance.is_none() {
                self.pending.insert(join.member.clone(), now + join.session.min(PENDING));
                return refused(ResponseError::MemberIdRequired, &join.member);
            }
        } else if holder.is_some_and(|holder| holder != join.member) {
            return refused(ResponseError::FencedInstanceId, &join.member);
        } else if self.pending.remove(&join.member).is_none() && !self.members.contains_key(&join.member) {
            return refused(ResponseError::UnknownMemberId, &join.member);
        }
        Ok(self.admit(join, false, now))
    }

    /// Lets a static member that returns within its session continue in its generation with its assignment; the others
    /// notice nothing.
    ///
    /// If it leads, it must not assign, because a stable group distributes no assignments. A client that does not
    /// understand `skip_assignment` is given its former id as the leader.
    fn take_back(&mut self, old: &str, join: Join, now: Instant) -> Waiting<JoinOutcome> {
        let (sender, waiting) = oneshot::channel();
        let (id, may_skip) = (join.member.clone(), join.may_skip);
        if let Some(member) = self.members.get_mut(&id) {
            member.update(join, now);
        }
        let mut joined = self.joined(&id);
        if self.leader == id {
            joined.skip_assignment = may_skip;
            if !may_skip {
                old.clone_into(&mut joined.leader);
                joined.members.clear();
            }
        }
        let _ = sender.send(Ok(joined));
        waiting
    }

    /// Adds or updates a member; with `anew` it always starts a rebalance.
    fn admit(&mut self, join: Join, anew: bool, now: Instant) -> Waiting<JoinOutcome> {
        let (sender, waiting) = oneshot::channel();
        let id = join.member.clone();
        let known = self.members.get(&id);
        let changed = anew || known.is_none_or(|member| member.protocols != join.protocols);
        let leads = self.leader == id;
        if self.members.is_empty() {
            self.protocol_type = join.protocol_type.clone();
        }
        match self.members.get_mut(&id) {
            Some(member) => member.update(join, now),
            None => drop(self.members.insert(id.clone(), Member::new(join, now))),
        }
        let repeat = match self.phase {
            Phase::Joining { .. } | Phase::Empty => false,
            // A repeated request whose answer was lost. A rejoin of the leader, however, requests a new assignment.
            Phase::Syncing { .. } => !changed,
            Phase::Stable => !changed && !leads,
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

    /// Returns whether `join` has the others' protocol type and a strategy that all of them know.
    fn agrees(&self, join: &Join) -> bool {
        let others = || self.members.iter().filter(|(id, _)| **id != join.member).map(|(_, member)| member);
        others().next().is_none()
            || self.protocol_type == join.protocol_type
                && join.protocols.iter().any(|(name, _)| others().all(|member| member.speaks(name)))
    }

    pub(super) fn holder(&self, instance: &StrBytes) -> Option<String> {
        self.members.iter().find(|(_, member)| member.instance.as_ref() == Some(instance)).map(|(id, _)| id.clone())
    }

    /// Replaces a static member by its restarted self; requests with the former id are refused from now on.
    fn replace(&mut self, old: &str, new: &str) {
        if let Some(mut member) = self.members.remove(old) {
            let error = ResponseError::FencedInstanceId;
            member.answer_join(Err(JoinRefused { error, member: old.to_owned() }));
            member.answer_sync(Err(error));
            self.members.insert(new.to_owned(), member);
            if self.leader == old {
                new.clone_into(&mut self.leader);
            }
        }
    }

    pub(super) fn start_joining(&mut self, now: Instant) {
        let timeout = self.members.values().map(|member| member.rebalance).max().unwrap_or_default();
        match &mut self.phase {
            // Members that start at the same time share the first rebalance.
            Phase::Joining { ends, ends_latest, .. } => {
                if *ends > now {
                    *ends = (now + self.delay).min(*ends_latest);
                }
            }
            Phase::Empty => {
                let (ends, ends_latest) = (now + self.delay, now + self.delay * RESTARTS);
                self.phase = Phase::Joining { deadline: now + timeout, ends, ends_latest };
            }
            Phase::Syncing { .. } | Phase::Stable => {
                self.phase = Phase::Joining { deadline: now + timeout, ends: now, ends_latest: now };
                for member in self.members.values_mut() {
                    member.answer_sync(Err(ResponseError::RebalanceInProgress));
                }
            }
        }
    }

    pub(super) fn try_complete(&mut self, now: Instant) {
        let Phase::Joining { deadline, ends, .. } = self.phase else {
            return;
        };
        let complete = self.pending.is_empty() && self.members.values().all(|member| member.join.is_some());
        if complete && now >= ends {
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
        let timeout = self.members.values().map(|member| member.rebalance).max().unwrap_or_default();
        self.phase = if self.members.is_empty() { Phase::Empty } else { Phase::Syncing { deadline: now + timeout } };
        let answers: Vec<_> = self.members.keys().map(|id| self.joined(id)).collect();
        for (member, answer) in self.members.values_mut().zip(answers) {
            member.assignment = Bytes::new();
            member.alive(now);
            member.answer_join(Ok(answer));
        }
    }

    /// Returns the strategy that most members prefer, among those that all know.
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
        votes.into_iter().max_by_key(|(_, count)| *count).map(|(name, _)| name).unwrap_or_default()
    }

    fn joined(&self, id: &str) -> Joined {
        let members = if id == self.leader {
            let listed =
                |(id, member): (&String, &Member)| (id.clone(), member.instance.clone(), member.subscription(&self.protocol));
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
            skip_assignment: false,
        }
    }
}
