//! Fetches and searches within and beyond the log.

use std::time::{Duration, Instant};

use kafka_protocol::messages::ListOffsetsRequest;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use minishop_broker::TopicSettings;
use tempfile::tempdir;

use super::batch::{Batch, batches, plain};
use super::fixture::{Log, settings};
use super::raw::{Raw, fetch, fetched, topic_name};

#[tokio::test]
async fn fetches_beyond_the_log_and_its_bounds_are_answered_within_them() {
    let dir = tempdir().unwrap();
    let log = Log::with_topic(&dir).await;
    let mut raw = log.connect().await;
    for n in 0..10 {
        raw.produce("t", 0, Batch::of_size(900_000 + n).clone()).await;
    }
    for (what, offset, code) in [("beyond the end", 11, 1), ("below the start", -1, 1), ("the end", 10, 0)] {
        let data = raw.fetch("t", 0, offset).await;
        assert_eq!((data.error_code, data.high_watermark), (code, 10), "{what}");
    }
    assert_eq!(raw.fetch("nowhere", 0, 0).await.error_code, 3);
    assert_eq!(raw.fetch("t", 99, 0).await.error_code, 3);

    let mut small = fetch("t", &[(0, 0), (0, 1)]);
    small.max_bytes = 1;
    small.topics[0].partitions[0].partition_max_bytes = 1;
    let data = fetched(raw.call(12, &small).await);
    assert_eq!(batches(data[0].records.as_ref().unwrap()), [(0, 1, 900_000)], "one whole batch");
    assert!(data[1].records.as_ref().unwrap().is_empty());

    let mut huge = fetch("t", &[(0, 0), (0, 0), (0, 0)]);
    huge.max_bytes = i32::MAX;
    for ask in &mut huge.topics[0].partitions {
        ask.partition_max_bytes = i32::MAX;
    }
    raw.send(12, &huge).await;
    let answer = raw.read_frame().await.unwrap();
    assert!(answer.len() <= 8_388_608, "{} bytes", answer.len());
    assert!(answer.len() > 7_000_000, "{} bytes", answer.len());
    log.stop().await;
}

#[tokio::test]
async fn a_wait_of_an_hour_is_cut_to_the_limit() {
    let dir = tempdir().unwrap();
    let mut settings = settings(&dir);
    settings.limits.fetch_wait = Duration::from_millis(200);
    let log = Log::start(settings).await;
    log.handle.ensure_topic("t", 1, TopicSettings::default()).await.unwrap();
    let mut raw = log.connect().await;
    let mut patient = fetch("t", &[(0, 0)]);
    patient.max_wait_ms = 3_600_000;
    raw.send(12, &patient).await;
    assert!(raw.stays_silent(Duration::from_millis(100)).await, "it did not wait");
    let data = fetched(raw.receive(1, 12).await).remove(0);
    assert_eq!((data.error_code, data.high_watermark), (0, 0));
    log.stop().await;
}

#[tokio::test]
async fn a_waiting_fetch_is_woken_by_the_first_record() {
    let dir = tempdir().unwrap();
    let log = Log::with_topic(&dir).await;
    let (mut waiting, mut raw) = (log.connect().await, log.connect().await);
    let mut patient = fetch("t", &[(0, 0), (1, 0), (2, 0)]);
    // An hour is cut to the limit; here it only has to be longer than the test.
    patient.max_wait_ms = 3_600_000;
    let begun = Instant::now();
    waiting.send(12, &patient).await;
    assert!(waiting.stays_silent(Duration::from_millis(50)).await);
    raw.produce("t", 2, plain(&["news"]).bytes()).await;
    let data = fetched(waiting.receive(1, 12).await);
    assert!(begun.elapsed() < Duration::from_secs(2), "woken after {:?}", begun.elapsed());
    assert_eq!(data.iter().map(|data| data.high_watermark).collect::<Vec<_>>(), [0, 0, 1]);
    log.stop().await;
}

#[tokio::test]
async fn topic_ids_are_spoken_in_newer_fetches() {
    let dir = tempdir().unwrap();
    let log = Log::with_topic(&dir).await;
    let mut raw = log.connect().await;
    raw.produce("t", 0, plain(&["x"]).bytes()).await;
    let id = raw.topic_id().await;
    let mut request = fetch("", &[(0, 0)]);
    request.topics[0].topic_id = id;
    for version in 13..=16 {
        let data = fetched(raw.call(version, &request).await).remove(0);
        assert_eq!((data.error_code, data.high_watermark), (0, 1), "version {version}");
    }
    request.topics[0].topic_id = uuid::Uuid::from_u128(7);
    assert_eq!(fetched(raw.call(13, &request).await)[0].error_code, 100);
    log.stop().await;
}

#[tokio::test]
async fn offsets_are_found_by_time() {
    let dir = tempdir().unwrap();
    let log = Log::with_topic(&dir).await;
    let mut raw = log.connect().await;
    for n in 0..4 {
        let batch = Batch { timestamp: 1_000 + n * 100, ..plain(&["a", "b"]) };
        raw.produce("t", 0, batch.bytes()).await;
    }
    let ask = async |raw: &mut Raw, timestamp| {
        let partition = ListOffsetsPartition::default().with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default().with_name(topic_name("t")).with_partitions(vec![partition]);
        let answer = raw.call(7, &ListOffsetsRequest::default().with_topics(vec![topic])).await;
        let found = &answer.topics[0].partitions[0];
        (found.error_code, found.offset, found.timestamp)
    };
    let rows = [
        (-1, (0, 8, -1)),
        (-2, (0, 0, -1)),
        (-3, (0, 7, 1_300)),
        (0, (0, 0, 1_000)),
        (1_101, (0, 4, 1_200)),
        (1_300, (0, 6, 1_300)),
        (1_301, (0, -1, -1)),
    ];
    for (timestamp, expected) in rows {
        assert_eq!(ask(&mut raw, timestamp).await, expected, "timestamp {timestamp}");
    }
    log.stop().await;
}
