//! One member of a consumer group.

use std::collections::BTreeSet;

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant};

use super::{Join, JoinOutcome, SyncOutcome};

#[derive(Debug)]
pub(crate) struct Member {
    pub instance: Option<StrBytes>,
    pub client_id: StrBytes,
    pub client_host: String,
    pub session: Duration,
    pub rebalance: Duration,
    pub protocols: Vec<(StrBytes, Bytes)>,
    pub assignment: Bytes,
    /// Without a sign of life until then the member is removed, unless it waits for an answer.
    pub expires: Instant,
    pub join: Option<oneshot::Sender<JoinOutcome>>,
    pub sync: Option<oneshot::Sender<SyncOutcome>>,
}

impl Member {
    pub fn new(join: Join, now: Instant) -> Self {
        Self {
            instance: join.instance,
            client_id: join.client_id,
            client_host: join.client_host,
            session: join.session,
            rebalance: join.rebalance,
            protocols: join.protocols,
            assignment: Bytes::new(),
            expires: now + join.session,
            join: None,
            sync: None,
        }
    }

    pub fn update(&mut self, join: Join, now: Instant) {
        self.client_id = join.client_id;
        self.client_host = join.client_host;
        self.session = join.session;
        self.rebalance = join.rebalance;
        self.protocols = join.protocols;
        self.alive(now);
    }

    pub fn alive(&mut self, now: Instant) {
        self.expires = now + self.session;
    }

    /// Returns whether the member waits for an answer; it cannot be expected to send heartbeats then.
    pub fn waits(&self) -> bool {
        self.join.is_some() || self.sync.is_some()
    }

    pub fn speaks(&self, protocol: &StrBytes) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }

    /// Returns whether a restarted member requests the same topics with the same strategies. Other parts of a subscription,
    /// such as the owned partitions, differ after a restart.
    pub fn requests_same(&self, join: &Join) -> bool {
        let same = |((name, had), (other, wishes)): (&(StrBytes, Bytes), &(StrBytes, Bytes))| {
            name == other && (had == wishes || topics(had).is_some_and(|topics_had| topics(wishes) == Some(topics_had)))
        };
        self.protocols.len() == join.protocols.len() && self.protocols.iter().zip(&join.protocols).all(same)
    }

    /// Returns whether the member may be assigned partitions of a topic; an unreadable subscription counts.
    pub fn subscribes(&self, topic: &str) -> bool {
        self.protocols.iter().any(|(_, subscription)| topics(subscription).is_none_or(|topics| topics.contains(topic.as_bytes())))
    }

    /// Returns the member's subscription for this strategy.
    pub fn subscription(&self, protocol: &StrBytes) -> Bytes {
        self.protocols.iter().find(|(name, _)| name == protocol).map(|(_, bytes)| bytes.clone()).unwrap_or_default()
    }

    /// Answers a pending join; if the client is gone, its session expires.
    pub fn answer_join(&mut self, outcome: JoinOutcome) {
        if let Some(waiting) = self.join.take() {
            let _ = waiting.send(outcome);
        }
    }

    /// Answers a pending sync.
    pub fn answer_sync(&mut self, outcome: SyncOutcome) {
        if let Some(waiting) = self.sync.take() {
            let _ = waiting.send(outcome);
        }
    }
}

/// Parses the topics of a consumer's subscription. All versions begin with a version, a count and names with lengths.
/// `None` if it is not one.
fn topics(subscription: &[u8]) -> Option<BTreeSet<&[u8]>> {
    let (count, mut rest) = subscription.get(2..)?.split_first_chunk()?;
    let mut topics = BTreeSet::new();
    for _ in 0..i32::from_be_bytes(*count) {
        let (length, behind) = rest.split_first_chunk()?;
        let (topic, behind) = behind.split_at_checked(usize::try_from(i16::from_be_bytes(*length)).ok()?)?;
        topics.insert(topic);
        rest = behind;
    }
    Some(topics)
}
