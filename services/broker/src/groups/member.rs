//! One member of a consumer group.

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
