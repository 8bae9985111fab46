//! A look at one place of one partition, with a client of its own: what it says is said of that place and of no other.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Message as _, Offset, TopicPartitionList};

use super::{Partition, PollError, base, judge};

/// What is read from a place on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// The first record stands at this offset, behind nothing that cannot be read.
    Record(i64),
    /// What stands there cannot be read, as the client says.
    Unreadable(String),
    /// Nothing came in time.
    Nothing,
}

/// Reads a partition from an offset until something comes, at most so long. Blocks.
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

/// Reads where a partition begins and ends. Blocks; the error means that its leader does not answer, or that it is not there.
pub fn range_of(brokers: &str, partition: &Partition, within: Duration) -> anyhow::Result<(i64, i64)> {
    Ok(reader(brokers)?.fetch_watermarks(&partition.topic, partition.partition, within)?)
}

fn reader(brokers: &str) -> anyhow::Result<BaseConsumer> {
    // The client wants a group's name to assign by hand; this one is never joined.
    let mut config = base(brokers, "minishop-look");
    config.set("group.id", "minishop-look").set("isolation.level", "read_committed");
    config.create().context("cannot make a reader")
}
