//! One member of a consumer group.

use std::collections::BTreeSet;

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use tokio::{
    sync::oneshot,
    time::{Duration, Instant},
};

use super::{Join, JoinOutcome, SyncOutcome};

/// A member between its join and its end.
#[derive(Debug)]
pub(crate) struct Member {
    pub instance: Option<StrBytes>,
    pub client_id: StrBytes,
    pub client_host: String,
    pub session: Duration,
    pub rebalance: Duration,
    pub protocols: Vec<(StrBytes, Bytes)>,
    pub assignment: Bytes,
    /// Without a sign of life by then the member is taken out, unless it waits for an answer of ours.
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

    /// True while the member waits for an answer of ours, so it cannot be expected to send heartbeats.
    pub fn waits(&self) -> bool {
        self.join.is_some() || self.sync.is_some()
    }

    pub fn speaks(&self, protocol: &StrBytes) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }

    /// True when a restarted self asks for the same topics by the same strategies. What else stands in a subscription, such
    /// as the partitions held, differs after a restart.
    pub fn wishes_as(&self, join: &Join) -> bool {
        let same = |((name, had), (other, wishes)): (&(StrBytes, Bytes), &(StrBytes, Bytes))| {
            name == other && (had == wishes || topics(had).is_some_and(|topics_had| topics(wishes) == Some(topics_had)))
        };
        self.protocols.len() == join.protocols.len() && self.protocols.iter().zip(&join.protocols).all(same)
    }

    /// True when the member may be given partitions of a topic; what cannot be read counts.
    pub fn subscribes(&self, topic: &str) -> bool {
        self.protocols.iter().any(|(_, subscription)| topics(subscription).is_none_or(|topics| topics.contains(topic.as_bytes())))
    }

    /// The member's subscription under this strategy.
    pub fn subscription(&self, protocol: &StrBytes) -> Bytes {
        self.protocols.iter().find(|(name, _)| name == protocol).map(|(_, bytes)| bytes.clone()).unwrap_or_default()
    }

    /// Answers a pending join; the client may be gone, then its session ends it.
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

/// The topics of a consumer's subscription, which all its versions begin with: a version, a count, names with lengths.
/// `None` for what is not one.
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
