//! Records, copied out of the client's memory.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use minishop_core::position::Position;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};

use super::super::Headers;

/// One partition of one topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    /// The topic, prefix included.
    pub topic: Arc<str>,
    pub partition: i32,
}

/// A record as it was read. Its bytes may be anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The topic, prefix included.
    pub topic: Arc<str>,
    pub partition: i32,
    pub offset: i64,
    /// The key; `None` is Kafka's null.
    pub key: Option<Bytes>,
    /// The value; `None` is Kafka's null.
    pub value: Option<Bytes>,
    pub headers: Headers,
    /// Milliseconds since 1970 by the producer or the broker; 0 when the record has no time.
    pub timestamp: i64,
}

impl Record {
    /// Returns the partition.
    pub fn place(&self) -> Partition {
        Partition { topic: self.topic.clone(), partition: self.partition }
    }

    /// Returns the bytes of key, value and headers.
    pub fn size(&self) -> usize {
        let of = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        of(&self.key) + of(&self.value) + self.headers.0.iter().map(|(name, value)| name.len() + of(value)).sum::<usize>()
    }
}

pub(super) fn read(message: &BorrowedMessage<'_>, topics: &[Arc<str>]) -> Record {
    let place = Partition::shared(topics, message.topic(), message.partition());
    Record {
        topic: place.topic,
        partition: place.partition,
        offset: message.offset(),
        key: message.key().map(Bytes::copy_from_slice),
        value: message.payload().map(Bytes::copy_from_slice),
        headers: headers(message),
        timestamp: message.timestamp().to_millis().unwrap_or(0).max(0),
    }
}

/// Copies the headers. One whose *name* is not UTF-8 is left out: the client's safe interface panics on it, and a record must not
/// stop the worker.
fn headers(message: &BorrowedMessage<'_>) -> Headers {
    let Some(headers) = message.headers() else { return Headers::default() };
    let read = |n| {
        let header = headers.get(n);
        (header.key.to_owned(), header.value.map(Bytes::copy_from_slice))
    };
    Headers((0..headers.count()).filter_map(|n| catch_unwind(AssertUnwindSafe(|| read(n))).ok()).collect())
}

pub(super) fn partitions(list: &TopicPartitionList, topics: &[Arc<str>]) -> Vec<Partition> {
    list.elements().iter().map(|e| Partition::shared(topics, e.topic(), e.partition())).collect()
}

/// Returns the elements with an absolute offset.
pub(super) fn positions(list: &TopicPartitionList) -> Vec<Position> {
    list.elements()
        .iter()
        .filter_map(|e| match e.offset() {
            Offset::Offset(next_offset) if next_offset >= 0 => {
                Some(Position { topic: e.topic().to_owned(), partition: e.partition(), next_offset })
            }
            _ => None,
        })
        .collect()
}
