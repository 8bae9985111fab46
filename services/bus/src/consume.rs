//! A member of a consumer group, polled by its own thread.
//!
//! Rebalance handlers run on the polling thread, inside [`Consumer::poll`]. Nothing is committed automatically: the caller
//! commits positions after its own transaction.

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

use context::Callbacks;
pub use context::Reach;
pub use look::{Look, look_at, range_of};
use minishop_core::chain::Chain;
use minishop_core::position::Position;
pub use record::{Partition, Record};
pub use tail::{Start, Tail};

/// The interval of the checks whether the member has left its group, and the timeout of one.
const LEAVE_POLL: Duration = Duration::from_millis(50);
const LEAVE_ANSWER: Duration = Duration::from_secs(1);

/// A consumer's settings.
#[derive(Debug, Clone)]
pub struct ConsumerSettings {
    pub brokers: String,
    pub group: String,
    /// The topics, prefix included.
    pub topics: Vec<String>,
    /// How long the group waits for a silent member.
    pub session_timeout: Duration,
    /// The static member name (KIP-345): a killed member that returns under it within the session timeout gets its partitions
    /// back at once, without a rebalance. Of two processes with one name, the first is fenced ([`PollError::Replaced`]).
    pub instance_id: Option<String>,
    /// Names this process to the broker; no other process may use it.
    pub client_id: String,
    /// The interval of statistics, see [`Consumer::reaches`].
    pub statistics_every: Duration,
}

/// Receives revoked partitions; returns their settled positions.
pub type Revoked = Box<dyn Fn(&[Partition]) -> Vec<Position> + Send + Sync>;
/// Receives assigned or lost partitions.
pub type OnPartitions = Box<dyn Fn(&[Partition]) + Send + Sync>;

/// The owner's rebalance handlers. They run on the polling thread and delay the group.
pub struct Handlers {
    /// Partitions are assigned; reading starts at the group's committed offsets, or at the beginning.
    pub assigned: OnPartitions,
    /// Partitions are revoked. Waits for running work and returns the settled positions, which are then committed.
    pub revoked: Revoked,
    /// Partitions are lost and may already have another owner: nothing may be committed.
    pub lost: OnPartitions,
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handlers").finish_non_exhaustive()
    }
}

/// Why a poll returned no record.
#[derive(thiserror::Error)]
pub enum PollError {
    /// The poll came too late and the group removed this member. Drop what is queued and poll again.
    #[error("the consumer was not polled in time and left its group")]
    Exceeded,
    /// A record somewhere is unreadable; the client does not say where. It may block its partition for good, or be skipped.
    #[error("a record cannot be read: {0}")]
    Unreadable(KafkaError),
    /// The client recovers by itself. Poll again.
    #[error("the event log is temporarily unavailable")]
    Passing(#[source] anyhow::Error),
    /// Another process has joined the group under this member's name. End the process.
    #[error("another process has taken this member's place in the group")]
    Replaced,
    /// This member can never read again. End the process.
    #[error("the consumer failed permanently")]
    Fatal(#[source] anyhow::Error),
}

impl fmt::Debug for PollError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Chain(self).fmt(f)
    }
}

/// One member of a consumer group. Dropping it leaves the group, unless the member is static (has an `instance_id`): only
/// [`Consumer::leave`] removes that one. Do either on a thread that may block.
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
    /// Joins the group. The brokers need not answer yet: the client connects when they do.
    pub fn join(settings: &ConsumerSettings, handlers: Handlers) -> anyhow::Result<Self> {
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
            .set("statistics.interval.ms", settings.statistics_every.as_millis().to_string())
            .create_with_context(Callbacks::new(handlers, &settings.topics))
            .context("cannot create a consumer")?;
        let topics: Vec<&str> = settings.topics.iter().map(String::as_str).collect();
        inner.subscribe(&topics).context("cannot subscribe")?;
        let (group, client_id) = (settings.group.clone(), settings.client_id.clone());
        Ok(Self { inner, group, client_id, is_named: settings.instance_id.is_some() })
    }

    /// Leaves the group and closes. Waits up to `at_most` for the brokers to confirm; returns whether the member has left.
    ///
    /// Closing a static member sends no leave request, so its partitions wait for it to return. That is right after a crash, but
    /// not after an orderly stop, after which it may never return.
    pub fn leave(self, at_most: Duration) -> bool {
        let deadline = Instant::now() + at_most;
        if !self.is_named {
            return true;
        }
        self.inner.unsubscribe();
        // `poll` runs the rebalance that revokes the partitions. Their next owner reads the records that it still returns.
        while Instant::now() < deadline {
            let _ = self.inner.poll(LEAVE_POLL);
            if self.inner.assignment().is_ok_and(|assigned| assigned.count() == 0) && self.is_gone() {
                return true;
            }
        }
        false
    }

    /// Returns whether the group no longer lists this member.
    fn is_gone(&self) -> bool {
        let Ok(list) = self.inner.fetch_group_list(Some(&self.group), LEAVE_ANSWER) else { return false };
        !list.groups().iter().flat_map(GroupInfo::members).any(|member| member.client_id() == self.client_id)
    }

    /// Waits up to `wait` for the next record, and serves the group. `None` when none came.
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

    /// Returns whether another process has joined under this member's name.
    fn is_fenced(&self) -> bool {
        self.inner.client().fatal_error().is_some_and(|(code, _)| code == RDKafkaErrorCode::FencedInstanceId)
    }

    /// Pauses all assigned partitions; the caller keeps polling.
    pub fn pause(&self) -> anyhow::Result<()> {
        Ok(self.inner.pause(&self.inner.assignment()?)?)
    }

    /// Resumes all assigned partitions.
    pub fn resume(&self) -> anyhow::Result<()> {
        Ok(self.inner.resume(&self.inner.assignment()?)?)
    }

    /// Commits positions without waiting. A failure is logged, and the next commit covers it.
    pub fn commit(&self, positions: &[Position]) -> anyhow::Result<()> {
        Ok(self.inner.commit(&list(positions)?, CommitMode::Async)?)
    }

    /// Commits positions and waits for the broker.
    pub fn commit_and_wait(&self, positions: &[Position]) -> anyhow::Result<()> {
        Ok(self.inner.commit(&list(positions)?, CommitMode::Sync)?)
    }

    /// Returns the positions that the group has committed; partitions without a commit are left out.
    pub fn committed(&self, partitions: &[Partition], wait: Duration) -> anyhow::Result<Vec<Position>> {
        let mut asked = TopicPartitionList::new();
        for p in partitions {
            asked.add_partition(&p.topic, p.partition);
        }
        Ok(record::positions(&self.inner.committed_offsets(asked, wait)?))
    }

    /// Returns whether a commit without waiting has failed since the last call.
    pub fn commit_failed(&self) -> bool {
        self.inner.context().commit_failed()
    }

    /// Returns a partition's first and end offset.
    pub fn range(&self, partition: &Partition, wait: Duration) -> anyhow::Result<(i64, i64)> {
        Ok(self.inner.fetch_watermarks(&partition.topic, partition.partition, wait)?)
    }

    /// Moves the position in an assigned partition. Records fetched before are dropped. Fails while the assignment is not yet in
    /// force.
    pub fn seek(&self, to: &Position, wait: Duration) -> anyhow::Result<()> {
        Ok(self.inner.seek(&to.topic, to.partition, Offset::Offset(to.next_offset), wait)?)
    }

    /// Returns the count of statistics so far and how far the client has read each partition.
    pub fn reaches(&self) -> (u64, HashMap<(String, i32), Reach>) {
        self.inner.context().reaches()
    }
}

/// The settings of every reader.
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
        // Bounds how late a new topic or partition is found; the default is 5 minutes.
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

/// Returns whether an error comes from the content of the log: bytes, checksums, codecs.
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
