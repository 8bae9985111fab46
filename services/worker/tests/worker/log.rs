//! Event logs for whole workers: the embedded one, and Apache Kafka where the store is PostgreSQL.

use std::net::SocketAddr;
use std::time::Duration;

use minishop_broker::{Settings, TopicSettings};
use minishop_bus::Record;
use minishop_bus::produce::Token;
use minishop_bus::produce::{Compression, Producer};
use minishop_testkit::log::{EmbeddedLog, any_port};
use minishop_testkit::servers::server;
use minishop_testkit::topics::fresh_topics;
use minishop_testkit::wait::{PATIENCE, eventually};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::mpsc;

use crate::records::Sent;
use crate::shop::Shop;

pub const PARTITIONS: i32 = 4;

/// A log with its own topics and group.
pub struct Log {
    pub brokers: String,
    pub prefix: String,
    embedded: Option<(EmbeddedLog, tempfile::TempDir)>,
}

/// How a stored batch is damaged.
#[derive(Debug, Clone, Copy)]
pub enum Damage {
    /// No record can be parsed; the checksum is right.
    Garbage,
    /// It claims to be compressed with lz4 and is not; the checksum is right.
    Codec,
    /// The checksum is wrong.
    Checksum,
}

/// Creates an embedded log whose batches can be damaged. It stores each batch as it comes, one per request.
pub async fn damageable() -> Log {
    embedded(any_port(), tempfile::tempdir().unwrap()).await
}

pub async fn log(shop: &Shop) -> Log {
    match if shop.is_distributed() { server("MINISHOP_TEST_KAFKA") } else { None } {
        None => damageable().await,
        Some(brokers) => Log { prefix: fresh_topics(&brokers, PARTITIONS).await, brokers, embedded: None },
    }
}

async fn embedded(addr: SocketAddr, dir: tempfile::TempDir) -> Log {
    let log = EmbeddedLog::start(Settings::new(addr, dir.path().join("log.db"))).await;
    for topic in ["orders.created", "orders.processed", "orders.created.dlq"] {
        log.topic(topic, PARTITIONS, TopicSettings::default()).await;
    }
    Log { brokers: log.addr.to_string(), prefix: String::new(), embedded: Some((log, dir)) }
}

impl Log {
    /// Returns the full name of an `orders.` topic.
    pub fn topic(&self, name: &str) -> String {
        format!("{}orders.{name}", self.prefix)
    }

    /// Produces records and waits until they are in the log.
    pub async fn send(&self, records: &[Record]) {
        let (report_to, mut reports) = mpsc::unbounded_channel();
        let topic = self.topic("created");
        let producer = Producer::new(&self.brokers, Compression::default(), report_to).unwrap();
        for (n, record) in records.iter().enumerate() {
            let token = Token { shard: 0, number: i64::try_from(n).unwrap(), generation: 0 };
            producer
                .send(token, &topic, record.key.as_deref().unwrap(), record.value.as_ref(), &record.headers.encode())
                .unwrap();
        }
        for _ in records {
            reports.recv().await.unwrap().result.unwrap();
        }
        tokio::task::spawn_blocking(move || drop(producer)).await.unwrap();
    }

    pub async fn send_events(&self, events: &[Sent]) {
        self.send(&events.iter().map(Sent::record).collect::<Vec<_>>()).await;
    }

    /// Reads the end of each partition and the group's offset.
    pub async fn ends_and_offsets(&self) -> (Vec<i64>, Vec<i64>) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("group.id", format!("{}g", self.prefix));
        let topic = self.topic("created");
        tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = config.create().unwrap();
            let patience = Duration::from_secs(10);
            let end = |n| consumer.fetch_watermarks(&topic, n, patience).unwrap().1;
            let ends = (0..PARTITIONS).map(end).collect();
            let mut list = TopicPartitionList::new();
            list.add_partition_range(&topic, 0, PARTITIONS - 1);
            let list = consumer.committed_offsets(list, patience).unwrap();
            let offset = |n| match list.find_partition(&topic, n).unwrap().offset() {
                Offset::Offset(offset) => offset,
                _ => 0,
            };
            (ends, (0..PARTITIONS).map(offset).collect())
        })
        .await
        .unwrap()
    }

    /// Waits until the group has committed the end of each partition.
    pub async fn is_committed_to_its_end(&self) {
        let look = async || {
            let (ends, offsets) = self.ends_and_offsets().await;
            if ends == offsets { Ok(()) } else { Err((ends, offsets)) }
        };
        eventually(PATIENCE, "ends and committed offsets are the same", look).await;
    }

    /// Drops all records of each partition but the last `keep`.
    pub async fn retain(&self, keep: i64) {
        let (ends, _) = self.ends_and_offsets().await;
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &self.brokers).create().unwrap();
        let mut list = TopicPartitionList::new();
        for (n, end) in (0..PARTITIONS).zip(ends) {
            list.add_partition_offset(&self.topic("created"), n, Offset::Offset(end - keep)).unwrap();
        }
        let done = admin.delete_records(&list, &AdminOptions::new()).await.unwrap();
        assert!(done.elements().iter().all(|e| e.error().is_ok()), "{done:?}");
    }

    /// Stops the embedded log, damages all batches of a partition from an offset on, and restarts it at the same address.
    pub async fn damage(&mut self, partition: i32, from: i64, damage: Damage) {
        let (log, dir) = self.embedded.take().unwrap();
        let (addr, file) = (log.addr, log.file.clone());
        log.stop().await;
        let mut connection = SqliteConnection::connect(file.to_str().unwrap()).await.unwrap();
        let all = "SELECT b.id, b.bytes FROM part p JOIN batch b ON b.base >= ? AND b.id >> 43 = p.id \
                   WHERE p.topic = 'orders.created' AND p.number = ?";
        let batches: Vec<(i64, Vec<u8>)> =
            sqlx::query_as(all).bind(from).bind(partition).fetch_all(&mut connection).await.unwrap();
        assert!(!batches.is_empty(), "there is something to damage");
        for (id, mut bytes) in batches {
            damage.apply(&mut bytes);
            let change = sqlx::query("UPDATE batch SET bytes = ? WHERE id = ?").bind(bytes).bind(id);
            change.execute(&mut connection).await.unwrap();
        }
        connection.close().await.unwrap();
        *self = embedded(addr, dir).await;
    }
}

impl Damage {
    /// Damages a batch (magic 2): checksum at 17, attributes at 21, records at 61.
    fn apply(self, bytes: &mut [u8]) {
        match self {
            Self::Garbage => {
                bytes[22] &= !0b111;
                bytes[61..].fill(0xff);
            }
            Self::Codec => {
                bytes[22] = bytes[22] & !0b111 | 3;
                bytes[61..].fill(0xff);
            }
            Self::Checksum => bytes[17] ^= 0xff,
        }
        if !matches!(self, Self::Checksum) {
            let sum = crc32c(&bytes[21..]);
            bytes[17..21].copy_from_slice(&sum.to_be_bytes());
        }
    }
}

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}
