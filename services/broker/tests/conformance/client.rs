//! Clients and steps that most cases share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use minishop_testkit::blocking::{block_on, eventually};
use minishop_testkit::fresh_name;
use minishop_testkit::wait::PATIENCE;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, DeliveryResult, ToBytes};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, ClientContext, Message};

pub fn config(broker: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker).set("allow.auto.create.topics", "false");
    config
}

pub fn admin(broker: &str) -> AdminClient<DefaultClientContext> {
    AdminClient::from_config(&config(broker)).unwrap()
}

pub fn create(broker: &str, topic: &NewTopic<'_>) -> Result<(), RDKafkaErrorCode> {
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    let mut results = block_on(admin(broker).create_topics([topic], &options)).unwrap();
    results.remove(0).map(drop).map_err(|(_, code)| code)
}

/// A new topic; deleted on drop, so that a shared broker does not fill up.
pub struct Topic {
    broker: String,
    pub name: String,
}

impl Topic {
    pub fn new(broker: &str, partitions: i32) -> Self {
        let name = fresh_name("conformance");
        create(broker, &NewTopic::new(&name, partitions, TopicReplication::Fixed(1))).unwrap();
        let topic = Self { broker: broker.to_owned(), name };
        eventually(PATIENCE, "the topic is known", || partition_count(broker, &topic.name) == usize::try_from(partitions).ok());
        topic
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        let _ = block_on(admin(&self.broker).delete_topics(&[&self.name], &AdminOptions::new()));
    }
}

/// Returns the number of partitions that have a leader; `None` if there are none.
pub fn partition_count(broker: &str, topic: &str) -> Option<usize> {
    let consumer: BaseConsumer = config(broker).create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).ok()?;
    let found = metadata.topics().first().filter(|found| found.error().is_none())?;
    let led = found.partitions().iter().filter(|partition| partition.leader() >= 0);
    Some(led.count()).filter(|count| *count > 0)
}

/// Partition and offset of each acknowledged record, by number, and the failures.
#[derive(Clone, Default)]
pub struct Acks {
    pub stored: Arc<Mutex<BTreeMap<usize, (i32, i64)>>>,
    pub failed: Arc<Mutex<Vec<KafkaError>>>,
}

impl ClientContext for Acks {}

impl ProducerContext for Acks {
    type DeliveryOpaque = Box<usize>;
    fn delivery(&self, result: &DeliveryResult<'_>, number: Box<usize>) {
        match result {
            Ok(message) => {
                let place = (message.partition(), message.offset());
                assert_eq!(self.stored.lock().unwrap().insert(*number, place), None);
            }
            Err((error, _)) => self.failed.lock().unwrap().push(error.clone()),
        }
    }
}

pub type Sender = ThreadedProducer<Acks>;

pub fn producer(broker: &str, settings: &[(&str, &str)]) -> Sender {
    let mut config = config(broker);
    config.set("partitioner", "murmur2_random").set("linger.ms", "5");
    for (name, value) in settings {
        config.set(*name, *value);
    }
    config.create_with_context(Acks::default()).unwrap()
}

/// Queues a record, waiting while the queue is full.
pub fn send<K: ToBytes + ?Sized, P: ToBytes + ?Sized>(producer: &Sender, record: BaseRecord<'_, K, P, Box<usize>>) {
    let mut record = record;
    while let Err((error, back)) = producer.send(record) {
        assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull));
        record = back;
        producer.poll(Duration::from_millis(1));
    }
}

/// Sends `count` records whose key and value are their number, and waits until all are stored.
pub fn send_numbers(broker: &str, topic: &str, count: usize) {
    let producer = producer(broker, &[("enable.idempotence", "true")]);
    for number in 0..count {
        let text = number.to_string();
        send(&producer, BaseRecord::with_opaque_to(topic, Box::new(number)).key(&text).payload(&text));
    }
    producer.flush(PATIENCE).unwrap();
    assert_eq!(producer.context().stored.lock().unwrap().len(), count);
}

pub fn number(message: &BorrowedMessage<'_>) -> usize {
    std::str::from_utf8(message.payload().unwrap()).unwrap().parse().unwrap()
}

/// Reads all partitions from their start until `count` records arrived, and passes each to `each`.
pub fn read_all(broker: &str, topic: &str, count: usize, mut each: impl FnMut(&BorrowedMessage<'_>)) {
    let consumer: BaseConsumer = config(broker)
        .set("group.id", fresh_name("reader"))
        .set("check.crcs", "true")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let partitions = partition_count(broker, topic).unwrap();
    let mut all = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions).unwrap() {
        all.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&all).unwrap();
    let begun = Instant::now();
    let mut read = 0;
    while read < count {
        assert!(begun.elapsed() < PATIENCE, "only {read} of {count} records came");
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            each(&message.unwrap());
            read += 1;
        }
    }
}

/// Returns the offsets of the first and the next record.
pub fn bounds(broker: &str, topic: &str, partition: i32) -> (i64, i64) {
    let consumer: BaseConsumer = config(broker).create().unwrap();
    consumer.fetch_watermarks(topic, partition, PATIENCE).unwrap()
}
