//! What survives a stop, a kill or a torn write.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientConfig, ClientContext, Message};
use tempfile::tempdir;

use super::bad_groups::{commit_alone, committed};
use super::batch::{batches, numbered, plain};
use super::child::{Served, free_addr};
use super::fixture::Log;

#[tokio::test]
async fn everything_is_there_again_after_a_restart() {
    let dir = tempdir().unwrap();
    let log = Log::with_topic(&dir).await;
    let mut raw = log.connect().await;
    let producer = raw.new_producer().await;
    for n in 0..3 {
        raw.produce("t", 0, numbered(producer, 0, n, 1).bytes()).await;
    }
    commit_alone(&mut raw, "g", 0, 2).await;
    let before = raw.fetch("t", 0, 0).await.records;
    log.stop().await;
    assert!(!dir.path().join("log.db-wal").exists(), "an orderly stop leaves one file");

    let log = Log::with_topic(&dir).await;
    let mut raw = log.connect().await;
    assert_eq!(raw.fetch("t", 0, 0).await.records, before, "the same bytes from the file as from memory");
    assert_eq!(committed(&mut raw, "g", 0).await, 2);
    let repeat = raw.produce("t", 0, numbered(producer, 0, 1, 1).bytes()).await;
    assert_eq!((repeat.error_code, repeat.base_offset), (0, 1), "a repeat is known across the restart");
    let gap = raw.produce("t", 0, numbered(producer, 0, 4, 1).bytes()).await;
    assert_eq!(gap.error_code, 45);
    let next = raw.produce("t", 0, numbered(producer, 0, 3, 1).bytes()).await;
    assert_eq!((next.error_code, next.base_offset), (0, 3));
    let other = raw.new_producer().await;
    assert!(other > producer, "a producer id was handed out twice");
    log.stop().await;
}

#[tokio::test]
async fn reading_from_the_file_and_from_memory_give_the_same() {
    let dir = tempdir().unwrap();
    let mut settings = super::fixture::settings(&dir);
    settings.limits.tail_bytes = 300;
    let log = Log::start(settings).await;
    log.handle.ensure_topic("t", 1, minishop_broker::TopicSettings::default()).await.unwrap();
    let mut raw = log.connect().await;
    for n in 0..20 {
        let values: Vec<String> = (0..=n % 3).map(|i| format!("record {n}.{i}")).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        raw.produce("t", 0, plain(&values).bytes()).await;
    }
    let all = batches(&raw.fetch("t", 0, 0).await.records.unwrap());
    assert_eq!(all.len(), 20);
    for (base, count, _) in &all {
        for offset in *base..*base + i64::from(*count) {
            let found = batches(&raw.fetch("t", 0, offset).await.records.unwrap());
            let expected: Vec<_> = all.iter().filter(|(b, c, _)| b + i64::from(*c) > offset).copied().collect();
            // An answer comes from memory or from the file, never from both.
            assert!(!found.is_empty() && expected.starts_with(&found), "offset {offset}: {found:?}");
        }
    }
    log.stop().await;
}

/// Acknowledged records, as number → partition and offset, and the count of failures.
#[derive(Clone, Default)]
struct Acks(Arc<Mutex<BTreeMap<usize, (i32, i64)>>>, Arc<AtomicUsize>);

impl ClientContext for Acks {}

impl ProducerContext for Acks {
    type DeliveryOpaque = Box<usize>;
    fn delivery(&self, result: &DeliveryResult<'_>, number: Box<usize>) {
        match result {
            Ok(message) => drop(self.0.lock().unwrap().insert(*number, (message.partition(), message.offset()))),
            Err(_) => drop(self.1.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

#[test]
fn kill_9_during_produce_loses_and_doubles_nothing() {
    const RECORDS: usize = 60_000;
    const KILLS: usize = 5;
    let dir = tempdir().unwrap();
    let (file, addr) = (dir.path().join("log.db"), free_addr());
    let mut served = Served::start(&file, addr);
    let acks = Acks::default();
    let producer: ThreadedProducer<Acks> = ClientConfig::new()
        .set("bootstrap.servers", addr.to_string())
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", "0")
        .set("linger.ms", "1")
        .set("batch.num.messages", "200")
        .set("reconnect.backoff.max.ms", "100")
        .set("queue.buffering.max.messages", "2000")
        .create_with_context(acks.clone())
        .unwrap();
    let mut kills = 0;
    for number in 0..RECORDS {
        let key = number.to_string();
        let mut record = BaseRecord::with_opaque_to("t", Box::new(number)).key(&key).payload(&key);
        while let Err((_, back)) = producer.send(record) {
            record = back;
            producer.poll(Duration::from_millis(1));
        }
        if number > (kills + 1) * RECORDS / (KILLS + 1) {
            kills += 1;
            served.kill();
            served = Served::start(&file, addr);
        }
    }
    producer.flush(Duration::from_mins(1)).unwrap();
    assert_eq!(kills, KILLS);
    let acked = acks.0.lock().unwrap().clone();
    assert_eq!((acked.len(), acks.1.load(Ordering::Relaxed)), (RECORDS, 0), "acknowledged and failed");

    served.kill();
    let _served = Served::start(&file, addr);
    let stored = read_all(addr, RECORDS);
    let mut seen: BTreeMap<usize, (i32, i64)> = BTreeMap::new();
    let mut next = BTreeMap::from([(0, 0), (1, 0), (2, 0)]);
    for (number, place) in stored {
        assert_eq!(seen.insert(number, place), None, "record {number} is stored twice");
        let expected = next.get_mut(&place.0).unwrap();
        assert_eq!(place.1, *expected, "a gap in partition {}", place.0);
        *expected += 1;
    }
    assert_eq!(seen, acked, "what is stored is not what was acknowledged");
}

/// Reads `count` records from the start of all partitions; returns number, partition and offset.
fn read_all(addr: std::net::SocketAddr, count: usize) -> Vec<(usize, (i32, i64))> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", addr.to_string())
        .set("group.id", "reader")
        .set("check.crcs", "true")
        .create()
        .unwrap();
    let mut all = TopicPartitionList::new();
    for partition in 0..3 {
        all.add_partition_offset("t", partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&all).unwrap();
    let begun = Instant::now();
    let mut found = Vec::new();
    while found.len() < count && begun.elapsed() < Duration::from_mins(1) {
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        let message = message.unwrap();
        let number = std::str::from_utf8(message.payload().unwrap()).unwrap().parse().unwrap();
        found.push((number, (message.partition(), message.offset())));
    }
    found
}

#[tokio::test]
async fn committed_offsets_and_acknowledged_records_survive_a_kill() {
    let dir = tempdir().unwrap();
    let (file, addr) = (dir.path().join("log.db"), free_addr());
    let mut expected = 0;
    for _ in 0..3 {
        let served = Served::start(&file, addr);
        let mut raw = super::raw::Raw::connect(addr).await;
        assert_eq!(raw.fetch("t", 0, 0).await.high_watermark, expected);
        assert_eq!(committed(&mut raw, "g", 0).await, if expected == 0 { -1 } else { expected });
        expected = raw.produce("t", 0, plain(&["x"]).bytes()).await.base_offset + 1;
        commit_alone(&mut raw, "g", 0, expected).await;
        served.kill();
    }
}

#[tokio::test]
async fn a_torn_end_of_the_write_ahead_log_costs_nothing_acknowledged() {
    let dir = tempdir().unwrap();
    let (file, addr) = (dir.path().join("log.db"), free_addr());
    let served = Served::start(&file, addr);
    let mut raw = super::raw::Raw::connect(addr).await;
    for _ in 0..5 {
        assert_eq!(raw.produce("t", 0, plain(&["kept"]).bytes()).await.error_code, 0);
    }
    served.kill();
    // Half a write without a commit, as a power cut leaves it.
    let wal = dir.path().join("log.db-wal");
    let mut bytes = std::fs::read(&wal).unwrap();
    let torn: Vec<u8> = bytes[32..32 + 5000].iter().map(|byte| byte ^ 0x5a).collect();
    bytes.extend(torn);
    std::fs::write(&wal, bytes).unwrap();
    let _served = Served::start(&file, addr);
    let mut raw = super::raw::Raw::connect(addr).await;
    let data = raw.fetch("t", 0, 0).await;
    assert_eq!(batches(&data.records.unwrap()).len(), 5);
    assert_eq!(raw.produce("t", 0, plain(&["next"]).bytes()).await.base_offset, 5);
}
