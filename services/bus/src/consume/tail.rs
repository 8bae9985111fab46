//! Reads topics without a consumer group, for commands and tests: [`Tail`] joins no group and commits no offset.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

use super::{Record, base, record};

/// Timeout of each request for metadata and end offsets.
const ANSWER: Duration = Duration::from_secs(10);

/// Where reading starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record of each partition.
    Beginning,
    /// At the end: new records only.
    End,
}

/// Reads whole topics, in order per partition. All its methods block.
pub struct Tail {
    inner: BaseConsumer,
    topics: Vec<Arc<str>>,
    /// Partitions that had records at the start, and their end offsets then.
    ends: Vec<(String, i32, i64)>,
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail").field("topics", &self.topics).finish_non_exhaustive()
    }
}

impl Tail {
    /// Opens all partitions of existing topics.
    pub fn open(brokers: &str, topics: &[String], start: Start) -> anyhow::Result<Self> {
        // To assign by hand, the client requires a group name; this group is never joined.
        let inner: BaseConsumer =
            base(brokers, "minishop-tail").set("group.id", "minishop-tail").create().context("cannot create a reader")?;
        let mut ends = Vec::new();
        let mut list = TopicPartitionList::new();
        for topic in topics {
            let metadata = inner.fetch_metadata(Some(topic), ANSWER).context("the event log does not answer")?;
            let found = metadata.topics().iter().find(|t| t.name() == topic && t.error().is_none());
            for p in found.with_context(|| format!("topic {topic} does not exist"))?.partitions() {
                let (first, end) = inner.fetch_watermarks(topic, p.id(), ANSWER)?;
                let from = match start {
                    Start::Beginning => first,
                    Start::End => end,
                };
                list.add_partition_offset(topic, p.id(), Offset::Offset(from))?;
                if end > from {
                    ends.push((topic.clone(), p.id(), end));
                }
            }
        }
        inner.assign(&list).context("cannot read the topics")?;
        Ok(Self { inner, topics: topics.iter().map(|t| Arc::from(t.as_str())).collect(), ends })
    }

    /// Waits up to `wait` for the next record. `None` when none came.
    pub fn next(&self, wait: Duration) -> anyhow::Result<Option<Record>> {
        self.inner.poll(wait).map(|message| Ok(record::read(&message?, &self.topics))).transpose()
    }

    /// Reads all records that existed when it was opened. Fails if that takes longer than `within`.
    pub fn rest(mut self, within: Duration) -> anyhow::Result<Vec<Record>> {
        let deadline = Instant::now() + within;
        let mut records = Vec::new();
        while !self.ends.is_empty() {
            anyhow::ensure!(Instant::now() < deadline, "the topics could not be read in time");
            if let Some(record) = self.next(Duration::from_millis(50))? {
                self.ends.retain(|(t, p, end)| *t != *record.topic || *p != record.partition || record.offset + 1 < *end);
                records.push(record);
            }
        }
        Ok(records)
    }
}
