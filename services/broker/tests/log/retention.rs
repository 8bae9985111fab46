//! Removal of batches that are too old, too many or deleted.

use std::time::Duration;

use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteTopicsRequest};
use minishop_broker::TopicSettings;
use minishop_testkit::wait::{PATIENCE, eventually};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};
use tempfile::tempdir;

use super::batch::{Batch, batches, plain};
use super::fixture::{Log, settings};
use super::raw::{Raw, topic_name};

async fn start(raw: &mut Raw, topic: &str) -> i64 {
    raw.fetch(topic, 0, 0).await.log_start_offset
}

/// Returns the bytes of all batches in the file.
async fn bytes_in_file(log: &Log) -> i64 {
    let options = SqliteConnectOptions::new().filename(&log.file).read_only(true);
    let mut reader = SqliteConnection::connect_with(&options).await.unwrap();
    let bytes = sqlx::query_scalar("SELECT coalesce(sum(length(bytes)), 0) FROM batch").fetch_one(&mut reader).await.unwrap();
    reader.close().await.unwrap();
    bytes
}

#[tokio::test]
async fn the_oldest_batches_go_when_a_partition_has_too_many_bytes() {
    let dir = tempdir().unwrap();
    let log = Log::start(settings(&dir)).await;
    let keep = TopicSettings { retention_bytes: Some(25_000), ..TopicSettings::default() };
    log.handle.ensure_topic("t", 1, keep).await.unwrap();
    let mut raw = log.connect().await;
    for _ in 0..10 {
        raw.produce("t", 0, Batch::of_size(10_000)).await;
    }
    eventually(PATIENCE, "the oldest are gone", async || start(&mut raw, "t").await == 8).await;
    assert_eq!(raw.fetch("t", 0, 7).await.error_code, 1);
    assert_eq!(batches(&raw.fetch("t", 0, 8).await.records.unwrap()).len(), 2);
    eventually(PATIENCE, "their bytes are gone", async || bytes_in_file(&log).await == 20_000).await;
    assert_eq!(raw.produce("t", 0, Batch::of_size(10_000)).await.base_offset, 10);
    eventually(PATIENCE, "the next is gone too", async || start(&mut raw, "t").await == 9).await;
    log.stop().await;
    let log = Log::start(settings(&dir)).await;
    assert_eq!(start(&mut log.connect().await, "t").await, 9, "the bound survives a restart");
    log.stop().await;
}

#[tokio::test]
async fn old_batches_go_but_the_newest_stays() {
    let dir = tempdir().unwrap();
    let log = Log::start(settings(&dir)).await;
    let brief = TopicSettings { retention: Some(Duration::from_millis(1)), ..TopicSettings::default() };
    log.handle.ensure_topic("a", 1, brief).await.unwrap();
    log.handle.ensure_topic("b", 1, TopicSettings { retention: None, ..brief }).await.unwrap();
    let mut raw = log.connect().await;
    for topic in ["a", "b"] {
        for _ in 0..3 {
            // The records' timestamp does not count: a replayed old one is kept as long as a new one.
            let future = Batch { timestamp: i64::MAX / 2, ..plain(&["x"]) };
            raw.produce(topic, 0, future.bytes()).await;
        }
    }
    eventually(PATIENCE, "the old ones are gone", async || start(&mut raw, "a").await == 2).await;
    assert_eq!(start(&mut raw, "b").await, 0);
    assert_eq!(raw.fetch("a", 0, 2).await.high_watermark, 3);
    log.stop().await;
}

async fn delete_records(raw: &mut Raw, offset: i64) -> (i16, i64) {
    let partition = DeleteRecordsPartition::default().with_offset(offset);
    let topic = DeleteRecordsTopic::default().with_name(topic_name("t")).with_partitions(vec![partition]);
    let answer = raw.call(2, &DeleteRecordsRequest::default().with_topics(vec![topic])).await;
    let answer = &answer.topics[0].partitions[0];
    (answer.error_code, answer.low_watermark)
}

#[tokio::test]
async fn deleted_records_are_hidden_at_once() {
    let dir = tempdir().unwrap();
    let log = Log::with_topic(&dir).await;
    let mut raw = log.connect().await;
    for _ in 0..3 {
        raw.produce("t", 0, plain(&["a", "b", "c"]).bytes()).await;
    }
    assert_eq!(delete_records(&mut raw, 10).await, (1, -1));
    assert_eq!(delete_records(&mut raw, 4).await, (0, 4));
    assert_eq!(delete_records(&mut raw, 2).await, (0, 4), "the start never moves back");
    assert_eq!(raw.fetch("t", 0, 3).await.error_code, 1);
    let data = raw.fetch("t", 0, 4).await;
    assert_eq!(batches(&data.records.unwrap())[0].0, 3, "a batch is served whole, clients skip its head");
    assert_eq!(delete_records(&mut raw, -1).await, (0, 9));
    assert_eq!(raw.fetch("t", 0, 9).await.log_start_offset, 9);
    eventually(PATIENCE, "its bytes are gone", async || bytes_in_file(&log).await == 0).await;
    log.stop().await;
    let log = Log::with_topic(&dir).await;
    let mut raw = log.connect().await;
    assert_eq!(raw.produce("t", 0, plain(&["d"]).bytes()).await.base_offset, 9);
    log.stop().await;
}

#[tokio::test]
async fn a_deleted_topics_batches_are_swept() {
    let dir = tempdir().unwrap();
    let log = Log::with_topic(&dir).await;
    let mut raw = log.connect().await;
    for _ in 0..10 {
        raw.produce("t", 0, plain(&["x"]).bytes()).await;
    }
    let delete = DeleteTopicsRequest::default().with_topic_names(vec![topic_name("t")]).with_timeout_ms(1000);
    assert_eq!(raw.call(5, &delete).await.responses[0].error_code, 0);
    let options = SqliteConnectOptions::new().filename(&log.file).read_only(true);
    let mut reader = SqliteConnection::connect_with(&options).await.unwrap();
    let mut left = i64::MAX;
    let begun = std::time::Instant::now();
    while left > 0 {
        left = sqlx::query_scalar("SELECT (SELECT count(*) FROM batch) + (SELECT count(*) FROM doomed)")
            .fetch_one(&mut reader)
            .await
            .unwrap();
        assert!(begun.elapsed() < Duration::from_secs(20), "{left} rows are left");
    }
    reader.close().await.unwrap();
    log.stop().await;
}
