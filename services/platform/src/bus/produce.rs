//! Producing: one idempotent producer, sends in order, reports by token.

use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use minishop_contracts::headers::kafka;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use tokio::sync::mpsc;

use super::Headers;
use crate::relay::Token;

/// How batches are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Not at all: every client reads that, also those that know gzip at best.
    #[default]
    None,
    /// By gzip.
    Gzip,
    /// By Snappy.
    Snappy,
    /// By LZ4.
    Lz4,
    /// By Zstandard.
    Zstd,
}

impl Compression {
    const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// Spells it as Kafka does.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Reads Kafka's spelling.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|compression| compression.as_str() == text)
    }
}

/// What became of a record.
#[derive(Debug)]
pub struct Report {
    /// Which record.
    pub token: Token,
    /// Where it was sent to; empty when it is published.
    pub topic: String,
    /// How long it was under way.
    pub took: Duration,
    /// `Err` when the broker or the client gave it up for good.
    pub result: Result<(), SendError>,
}

/// Why a record was not sent, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The local queue is full: wait for a report, then send the same record again.
    #[error("the producer's queue is full")]
    QueueFull,
    /// The producer is beyond repair: make a new one and start again from the table.
    #[error("the producer failed for good: {0}")]
    Fatal(String),
    /// The record is larger than the broker takes.
    #[error("the record is too large")]
    TooLarge,
    /// This record can never be published: something of its own is wrong.
    #[error("the record was refused: {0}")]
    Record(String),
    /// The topic takes no records, or not from us: try again later.
    #[error("the topic takes no records: {0}")]
    Topic(String),
}

#[derive(Clone)]
struct Reports(mpsc::UnboundedSender<Report>);

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<(Token, Instant)>;

    fn delivery(&self, delivery: &DeliveryResult<'_>, sent: Self::DeliveryOpaque) {
        let (token, at) = *sent;
        let (topic, result) = match delivery {
            Ok(_) => (String::new(), Ok(())),
            Err((error, message)) => (message.topic().to_owned(), Err(advice(error))),
        };
        // Without a receiver the relay is gone, and what was sent stays in the table.
        let _ = self.0.send(Report { token, topic, took: at.elapsed(), result });
    }
}

/// Sends records in the order of the calls. Ordering and de-duplication hold within one producer, not across two.
pub struct Producer(ThreadedProducer<Reports>);

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").finish_non_exhaustive()
    }
}

impl Producer {
    /// Makes a producer; it connects by itself, whenever the broker answers.
    pub fn new(brokers: &str, compression: Compression, reports: mpsc::UnboundedSender<Report>) -> anyhow::Result<Self> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("client.id", format!("minishop-relay-{}", std::process::id()))
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // A timed-out message leaves a gap in its partition: the relay decides when to give up, which is never.
            .set("message.timeout.ms", "0")
            // The client sends each partition in a request of its own: at 5 ms eight partitions cost a fifth more CPU an order,
            // at 20 ms they save another tenth for twice the delay.
            .set("linger.ms", "10")
            .set("compression.type", compression.as_str())
            .set("queue.buffering.max.messages", "10000")
            .set("queue.buffering.max.kbytes", "65536")
            .set("message.max.bytes", "2000000")
            // Java's clients choose partitions this way; librdkafka's default (CRC32) would choose others.
            .set("partitioner", "murmur2_random")
            .set("allow.auto.create.topics", "false")
            .set("socket.keepalive.enable", "true")
            .set("socket.nagle.disable", "true")
            .create_with_context(Reports(reports))
            .context("cannot make a producer")?;
        Ok(Self(producer))
    }

    /// Queues one record; its fate comes as a [`Report`]. An empty key is sent as null when the headers say that it was.
    pub fn send(&self, token: Token, topic: &str, key: &[u8], value: Option<&Bytes>, headers: &Headers) -> Result<(), SendError> {
        let mut owned = OwnedHeaders::new_with_capacity(headers.0.len());
        for (name, value) in &headers.0 {
            owned = owned.insert(Header { key: name, value: value.as_deref() });
        }
        let mut record = BaseRecord::with_opaque_to(topic, Box::new((token, Instant::now()))).headers(owned);
        // The outbox keeps bytes, which cannot be null.
        if !key.is_empty() || headers.get(kafka::DLQ_KEY_NULL).is_none() {
            record = record.key(key);
        }
        if let Some(value) = value {
            record = record.payload(value.as_ref());
        }
        self.0.send(record).map_err(|(error, _)| advice(&error))
    }

    /// Waits until the queue is empty, at most so long. Blocks its thread.
    pub fn flush(&self, at_most: Duration) {
        let _ = self.0.flush(at_most);
    }
}

fn advice(error: &KafkaError) -> SendError {
    use RDKafkaErrorCode as Code;
    let reason = || error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| code.to_string());
    match error.rdkafka_error_code() {
        Some(Code::QueueFull) => SendError::QueueFull,
        Some(Code::MessageSizeTooLarge) => SendError::TooLarge,
        // Errors of the record itself (KIP-467), which no other try can pass.
        Some(Code::InvalidRecord | Code::InvalidTimestamp | Code::InvalidMessage | Code::InvalidMessageSize) => {
            SendError::Record(reason())
        }
        Some(Code::Fatal | Code::Fenced | Code::PurgeQueue | Code::PurgeInflight) => SendError::Fatal(error.to_string()),
        _ => SendError::Topic(reason()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_compression_is_built_in() {
        for compression in Compression::ALL {
            let made = Producer::new("127.0.0.1:1", compression, mpsc::unbounded_channel().0);
            assert!(made.is_ok(), "{compression:?}: {made:?}");
            assert_eq!(Compression::parse(compression.as_str()), Some(compression));
        }
        assert_eq!(Compression::parse("LZ4"), None);
    }
}
