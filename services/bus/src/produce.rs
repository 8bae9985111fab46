//! The producer: idempotent, sends in order, reports by token.

use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use minishop_contracts::headers::kafka;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer};
use tokio::sync::mpsc;

use super::headers::visit;

/// How batches are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Uncompressed: readable by every client, also by those that know gzip at most.
    #[default]
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Compression {
    const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// Returns Kafka's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Parses Kafka's name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|compression| compression.as_str() == text)
    }
}

/// Identifies a record in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token {
    pub shard: i16,
    pub number: i64,
    /// The generation of the shard in which it was sent. Reports of an earlier generation are ignored.
    pub generation: u64,
}

/// The outcome of one send.
#[derive(Debug)]
pub struct Report {
    pub token: Token,
    /// Its topic; empty when it is published.
    pub topic: String,
    /// Whether it had its own batch.
    pub alone: bool,
    pub took: Duration,
    /// `Err` when neither broker nor client will retry the record.
    pub result: Result<(), SendError>,
}

/// Why a record was not sent, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The local queue is full: wait for a report, then send the same record again.
    #[error("the producer's queue is full")]
    QueueFull,
    /// The producer is unusable: create a new one and read the outbox again.
    #[error("the producer failed permanently: {0}")]
    Fatal(String),
    /// The record is larger than the broker accepts.
    #[error("the record is too large")]
    TooLarge,
    /// The record is faulty and can never be published.
    #[error("the record was refused: {0}")]
    Record(String),
    /// The topic accepts no records, or none from this client: retry later.
    #[error("the topic does not accept records: {0}")]
    Topic(String),
}

/// The context of a record in flight.
struct Sent {
    token: Token,
    alone: bool,
    at: Instant,
}

impl Sent {
    fn now(token: Token, alone: bool) -> Self {
        Self { token, alone, at: Instant::now() }
    }
}

#[derive(Clone)]
struct Reports(mpsc::UnboundedSender<Report>);

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Sent>;

    fn delivery(&self, delivery: &DeliveryResult<'_>, sent: Self::DeliveryOpaque) {
        let Sent { token, alone, at } = *sent;
        let (topic, result) = match delivery {
            Ok(_) => (String::new(), Ok(())),
            Err((error, message)) => (message.topic().to_owned(), Err(advice(error))),
        };
        // Without a receiver the relay has ended; its records stay in the outbox.
        let _ = self.0.send(Report { token, topic, alone, took: at.elapsed(), result });
    }
}

/// Sends records in the order of the calls. Ordering and de-duplication hold within one producer, not across two.
///
/// When a batch fails for good, the producer fails with it ([`SendError::Fatal`]): otherwise the client would renumber the
/// batches in flight behind it and publish those first.
pub struct Producer {
    batching: ThreadedProducer<Reports>,
    /// Sends each record in a batch of its own; created when first needed.
    single: Option<ThreadedProducer<Reports>>,
    config: ClientConfig,
    reports: Reports,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").finish_non_exhaustive()
    }
}

impl Producer {
    /// Creates a producer; it connects when the broker answers.
    pub fn new(brokers: &str, compression: Compression, reports: mpsc::UnboundedSender<Report>) -> anyhow::Result<Self> {
        let (config, reports) = (config(brokers, compression), Reports(reports));
        let batching = config.create_with_context(reports.clone()).context("cannot create a producer")?;
        Ok(Self { batching, single: None, config, reports })
    }

    /// Queues one record in a batch of its own. If it fails, other records do not fail with it and may overtake it: the
    /// caller must wait for its [`Report`].
    pub fn send_alone(
        &mut self,
        token: Token,
        topic: &str,
        key: &[u8],
        value: Option<&Bytes>,
        headers: &[u8],
    ) -> Result<(), SendError> {
        let single = if let Some(single) = self.single.take() {
            single
        } else {
            let mut config = self.config.clone();
            config.set("batch.num.messages", "1").set("linger.ms", "0").set("enable.gapless.guarantee", "false");
            let made = config.create_with_context(self.reports.clone());
            made.map_err(|error| SendError::Fatal(error.to_string()))?
        };
        send(self.single.insert(single), Sent::now(token, true), topic, key, value, headers)
    }

    /// Queues one record; its outcome arrives as a [`Report`]. `headers` are encoded by [`super::Headers::encode`]. An empty key is sent
    /// as null if the headers say that it was null.
    pub fn send(&self, token: Token, topic: &str, key: &[u8], value: Option<&Bytes>, headers: &[u8]) -> Result<(), SendError> {
        send(&self.batching, Sent::now(token, false), topic, key, value, headers)
    }

    /// Discards all records queued or in flight. Closing the client library is slow, so another thread does it.
    pub fn give_up(self) {
        let producers: Vec<_> = std::iter::once(self.batching).chain(self.single).collect();
        for producer in &producers {
            producer.purge(PurgeConfig::default().queue().inflight());
        }
        std::thread::spawn(move || drop(producers));
    }
}

fn config(brokers: &str, compression: Compression) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("client.id", format!("minishop-relay-{}", std::process::id()))
        .set("enable.idempotence", "true")
        .set("enable.gapless.guarantee", "true")
        .set("acks", "all")
        // 0 disables the timeout: a message that times out leaves a gap in its partition. Only the relay gives records up.
        .set("message.timeout.ms", "0")
        // The client sends one request per partition: with eight partitions, 5 ms costs a fifth more CPU per order; 20 ms saves
        // another tenth for twice the delay.
        .set("linger.ms", "10")
        .set("compression.type", compression.as_str())
        .set("queue.buffering.max.messages", "10000")
        .set("queue.buffering.max.kbytes", "65536")
        .set("message.max.bytes", "2000000")
        // Chooses partitions like Java's clients; librdkafka's default (CRC32) differs.
        .set("partitioner", "murmur2_random")
        .set("allow.auto.create.topics", "false")
        .set("socket.keepalive.enable", "true")
        .set("socket.nagle.disable", "true");
    config
}

fn send(
    producer: &ThreadedProducer<Reports>,
    sent: Sent,
    topic: &str,
    key: &[u8],
    value: Option<&Bytes>,
    headers: &[u8],
) -> Result<(), SendError> {
    let (mut owned, mut null_key) = (Some(OwnedHeaders::new()), false);
    let read = visit(headers, |name, value| {
        null_key |= name == kafka::DLQ_KEY_NULL;
        owned = owned.take().map(|headers| headers.insert(Header { key: name, value }));
    });
    let (Some(()), Some(owned)) = (read, owned) else { return Err(SendError::Record("its headers cannot be read".into())) };
    let mut record = BaseRecord::with_opaque_to(topic, Box::new(sent)).headers(owned);
    // The outbox stores a null key as empty bytes.
    if !key.is_empty() || !null_key {
        record = record.key(key);
    }
    if let Some(value) = value {
        record = record.payload(value.as_ref());
    }
    producer.send(record).map_err(|(error, _)| advice(&error))
}

fn advice(error: &KafkaError) -> SendError {
    use RDKafkaErrorCode as Code;
    let reason = || error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| code.to_string());
    match error.rdkafka_error_code() {
        Some(Code::QueueFull) => SendError::QueueFull,
        Some(Code::MessageSizeTooLarge) => SendError::TooLarge,
        // Errors of the record itself (KIP-467): no retry can succeed.
        Some(Code::InvalidRecord | Code::InvalidTimestamp | Code::InvalidMessage | Code::InvalidMessageSize) => {
            SendError::Record(reason())
        }
        Some(Code::Fatal | Code::GaplessGuarantee | Code::Fenced | Code::PurgeQueue | Code::PurgeInflight) => {
            SendError::Fatal(error.to_string())
        }
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
