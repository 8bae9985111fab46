//! Reads one offset of one partition with a separate client, so that an error can only concern that offset.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Message as _, Offset, TopicPartitionList};

use super::{Partition, PollError, base, judge};

/// What a read from an offset finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// The offset of the first record; nothing unreadable precedes it.
    Record(i64),
    /// Something unreadable, with the client's error.
    Unreadable(String),
    /// No answer in time.
    Nothing,
}

/// Reads a partition from `offset` until the first result, at most `within`. Blocks.
pub fn look_at(brokers: &str, partition: &Partition, offset: i64, within: Duration) -> anyhow::Result<Look> {
    let reader = reader(brokers)?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&partition.topic, partition.partition, Offset::Offset(offset))?;
    reader.assign(&list).context("cannot read the partition")?;
    let deadline = Instant::now() + within;
    while Instant::now() < deadline {
        match reader.poll(Duration::from_millis(50)) {
            None => {}
            Some(Ok(message)) => return Ok(Look::Record(message.offset())),
            Some(Err(error)) => {
                if let PollError::Unreadable(error) = judge(error) {
                    return Ok(Look::Unreadable(error.to_string()));
                }
            }
        }
    }
    Ok(Look::Nothing)
}

/// Returns the first offset and the end offset of a partition. Blocks. Fails if its leader does not answer or it does not exist.
pub fn range_of(brokers: &str, partition: &Partition, within: Duration) -> anyhow::Result<(i64, i64)> {
    Ok(reader(brokers)?.fetch_watermarks(&partition.topic, partition.partition, within)?)
}

fn reader(brokers: &str) -> anyhow::Result<BaseConsumer> {
    // To assign by hand, the client requires a group name; this group is never joined.
    let mut config = base(brokers, "minishop-look");
    config.set("group.id", "minishop-look").set("isolation.level", "read_committed");
    config.create().context("cannot create a reader")
}
