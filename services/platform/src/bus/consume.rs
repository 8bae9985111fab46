//! Consuming: one group member, polled by one thread of its own.
//!
//! Rebalance handlers run on the polling thread, inside [`Consumer::poll`]. Nothing commits by itself: what is committed is
//! what the caller names, after its own transaction.

mod context;
mod look;
mod record;
mod tail;

use std::collections::HashMap;
use std::fmt::{self, Display as _};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::groups::GroupInfo;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::store::Position;
use crate::telemetry::Chain;
use context::Callbacks;
pub use context::Reach;
pub use look::{Look, look_at, range_of};
pub use record::{Partition, Record};
pub use tail::{Start, Tail};

/// How often it is looked whether the group has been left, and how long an answer may take.
const LEAVE_POLL: Duration = Duration::from_millis(50);
const LEAVE_ANSWER: Duration = Duration::from_secs(1);

/// Who consumes what.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bootstrap servers.
    pub brokers: String,
    /// The consumer group.
    pub group: String,
    /// The topics, prefix included.
    pub topics: Vec<String>,
    /// How long the group waits for a silent member.
    pub session_timeout: Duration,
    /// The member's own name (KIP-345): one that is killed and comes back under it within the session has its partitions again at
    /// once, without a rebalance. Two processes under one name: the first is put out for good ([`PollError::Replaced`]).
    pub instance_id: Option<String>,
    /// Names this process to the broker; no other process may use it.
    pub client_id: String,
}

/// Hears of partitions that go and names what was settled of them.
pub type Revoked = Box<dyn Fn(&[Partition]) -> Vec<Position> + Send + Sync>;
/// Hears of partitions that come, or that are another member's already.
pub type OnPartitions = Box<dyn Fn(&[Partition]) + Send + Sync>;

/// What the owner does when partitions come and go. Each runs on the polling thread and holds up the group.
pub struct Handlers {
    /// Partitions come; they are read from the group's committed offsets, or from the beginning.
    pub assigned: OnPartitions,
    /// Partitions go. Waits for what runs and names what was settled, which is then committed before they are given up.
    pub revoked: Revoked,
    /// Partitions are gone and may be another member's already: nothing may be committed.
    pub lost: OnPartitions,
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handlers").finish_non_exhaustive()
    }
}

/// Why a poll gave no record.
#[derive(thiserror::Error)]
pub enum PollError {
    /// The poll came too late and the group has put this member out. Drop what is queued and poll again.
    #[error("the consumer was not polled in time and left its group")]
    Exceeded,
    /// A record somewhere cannot be read; the client does not say where. It may hold up its partition for good, or be passed over.
    #[error("a record cannot be read: {0}")]
    Unreadable(KafkaError),
    /// The client recovers by itself. Poll again.
    #[error("the event log cannot be read at the moment")]
    Passing(#[source] anyhow::Error),
    /// Another process has joined the group under this member's own name. End the process.
    #[error("another process has taken this member's place in the group")]
    Replaced,
    /// This member can never read again. End the process.
    #[error("the consumer is beyond recovery")]
    Fatal(#[source] anyhow::Error),
}

impl fmt::Debug for PollError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Chain(self).fmt(f)
    }
}

/// One member of a consumer group. Closing it (by dropping) leaves the group, but for a member with a name of its own, which only
/// [`Consumer::leave`] takes out of it; do either on a thread that may block.
pub struct Consumer {
    inner: BaseConsumer<Callbacks>,
    group: String,
    client_id: String,
    is_named: bool,
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").finish_non_exhaustive()
    }
}

impl Consumer {
    /// Joins the group. The servers need not answer yet: the client connects when they do.
    pub fn join(settings: &Settings, handlers: Handlers) -> anyhow::Result<Self> {
        let heartbeat = (settings.session_timeout.as_millis() / 3).min(3_000);
        let mut config = base(&settings.brokers, &settings.client_id);
        if let Some(name) = &settings.instance_id {
            config.set("group.instance.id", name);
        }
        let inner: BaseConsumer<Callbacks> = config
            .set("group.id", &settings.group)
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", settings.session_timeout.as_millis().to_string())
            .set("heartbeat.interval.ms", heartbeat.to_string())
            .set("max.poll.interval.ms", settings.session_timeout.as_millis().max(300_000).to_string())
            .set("statistics.interval.ms", "5000")
            .create_with_context(Callbacks::new(handlers, &settings.topics))
            .context("cannot make a consumer")?;
        let topics: Vec<&str> = settings.topics.iter().map(String::as_str).collect();
        inner.subscribe(&topics).context("cannot subscribe")?;
        let (group, client_id) = (settings.group.clone(), settings.client_id.clone());
        Ok(Self { inner, group, client_id, is_named: settings.instance_id.is_some() })
    }

    /// Leaves the group and closes. Waits at most so long for the brokers to have heard it; tells whether they have.
    ///
    /// The client closes a member with a name of its own without a word, so that its partitions wait for it to come back: right after
    /// a crash, wrong after an orderly end, of which nobody can know that a start will follow it.
    pub fn leave(self, at_most: Duration) -> bool {
        let deadline = Instant::now() + at_most;
        if !self.is_named {
            return true;
        }
        self.inner.unsubscribe();
        // Polled, so that the partitions are given up; what is still delivered of them is another member's to read.
        while Instant::now() < deadline {
            let _ = self.inner.poll(LEAVE_POLL);
            if self.inner.assignment().is_ok_and(|assigned| assigned.count() == 0) && self.is_gone() {
                return true;
            }
        }
        false
    }

    /// Asks the brokers whether the group is without this member.
    fn is_gone(&self) -> bool {
        let Ok(list) = self.inner.fetch_group_list(Some(&self.group), LEAVE_ANSWER) else { return false };
        !list.groups().iter().flat_map(GroupInfo::members).any(|member| member.client_id() == self.client_id)
    }

    /// Waits for the next record, at most `wait`, and serves the group. `None` when none came.
    pub fn poll(&self, wait: Duration) -> Result<Option<Record>, PollError> {
        match self.inner.poll(wait) {
            None => Ok(None),
            Some(Ok(message)) => Ok(Some(record::read(&message, self.inner.context().topics()))),
            Some(Err(error)) => Err(match judge(error) {
                PollError::Fatal(_) if self.is_fenced() => PollError::Replaced,
                error => error,
            }),
        }
    }

    /// Tells whether another process has joined under this member's own name.
    fn is_fenced(&self) -> bool {
        self.inner.client().fatal_error().is_some_and(|(code, _)| code == RDKafkaErrorCode::FencedInstanceId)
    }

    /// Stops the delivery of all assigned partitions; polling goes on.
    pub fn pause(&self) -> anyhow::Result<()> {
        Ok(self.inner.pause(&self.inner.assignment()?)?)
    }

    /// Goes on with all assigned partitions.
    pub fn resume(&self) -> anyhow::Result<()> {
        Ok(self.inner.resume(&self.inner.assignment()?)?)
    }

    /// Commits positions and does not wait; a failure is logged, and the next commit makes it good.
    pub fn commit(&self, positions: &[Position]) -> anyhow::Result<()> {
        Ok(self.inner.commit(&list(positions)?, CommitMode::Async)?)
    }

    /// Commits positions and waits for the broker.
    pub fn commit_and_wait(&self, positions: &[Position]) -> anyhow::Result<()> {
        Ok(self.inner.commit(&list(positions)?, CommitMode::Sync)?)
    }

    /// Reads what the group has committed of partitions; those without a commit are left out.
    pub fn committed(&self, partitions: &[Partition], wait: Duration) -> anyhow::Result<Vec<Position>> {
        let mut asked = TopicPartitionList::new();
        for p in partitions {
            asked.add_partition(&p.topic, p.partition);
        }
        Ok(record::positions(&self.inner.committed_offsets(asked, wait)?))
    }

    /// Tells whether a commit without waiting has failed since the last call.
    pub fn commit_failed(&self) -> bool {
        self.inner.context().commit_failed()
    }

    /// Reads where a partition begins and ends.
    pub fn range(&self, partition: &Partition, wait: Duration) -> anyhow::Result<(i64, i64)> {
        Ok(self.inner.fetch_watermarks(&partition.topic, partition.partition, wait)?)
    }

    /// Moves the reading of an assigned partition. What was fetched from elsewhere is not delivered any more. Fails while the
    /// assignment is not yet in force.
    pub fn seek(&self, to: &Position, wait: Duration) -> anyhow::Result<()> {
        Ok(self.inner.seek(&to.topic, to.partition, Offset::Offset(to.next_offset), wait)?)
    }

    /// Tells how far the client has read the partitions, as of the last statistics (every 5 s), and how many there have been.
    pub fn reaches(&self) -> (u64, HashMap<(String, i32), Reach>) {
        self.inner.context().reaches()
    }
}

/// What every reader sets.
fn base(brokers: &str, client_id: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("client.id", client_id)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("allow.auto.create.topics", "false")
        .set("check.crcs", "true")
        .set("queued.min.messages", "1000")
        .set("queued.max.messages.kbytes", "16384")
        .set("fetch.max.bytes", "8388608")
        // The default of a second stalls a partition whose local queue was full.
        .set("fetch.queue.backoff.ms", "10")
        .set("fetch.wait.max.ms", "100")
        // A topic or partition that is made later is found within this time; the default is 5 minutes.
        .set("topic.metadata.refresh.interval.ms", "10000")
        .set("socket.keepalive.enable", "true")
        .set("socket.nagle.disable", "true");
    config
}

fn list(positions: &[Position]) -> anyhow::Result<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(positions.len());
    for p in positions {
        list.add_partition_offset(&p.topic, p.partition, Offset::Offset(p.next_offset))?;
    }
    Ok(list)
}

fn judge(error: KafkaError) -> PollError {
    match error {
        KafkaError::MessageConsumptionFatal(_) | KafkaError::MessageConsumption(RDKafkaErrorCode::Fatal) => {
            PollError::Fatal(error.into())
        }
        KafkaError::MessageConsumption(RDKafkaErrorCode::PollExceeded) => PollError::Exceeded,
        KafkaError::MessageConsumption(code) if is_of_a_record(code) => PollError::Unreadable(error),
        _ => PollError::Passing(error.into()),
    }
}

/// Tells whether an error is that of what stands in the log: bytes, checksums and codecs.
fn is_of_a_record(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::BadMessage
            | RDKafkaErrorCode::BadCompression
            | RDKafkaErrorCode::NotImplemented
            | RDKafkaErrorCode::Underflow
            | RDKafkaErrorCode::InvalidMessage
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::UnsupportedCompressionType
            | RDKafkaErrorCode::KafkaStorageError
    )
}
