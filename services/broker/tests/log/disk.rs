//! Foreign and damaged files, and a full disk.

use std::fs;
use std::path::Path;
use std::time::Duration;

use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use minishop_broker::{Error, Settings, TopicSettings, open};
use minishop_testkit::wait::{PATIENCE, eventually};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};
use tempfile::tempdir;

use super::batch::{Batch, batches, plain};
use super::fixture::{Log, settings};
use super::raw::topic_name;

async fn refusal(file: &Path) -> Error {
    let settings = Settings::new("127.0.0.1:0".parse().unwrap(), file);
    match open(settings).await {
        Ok(_) => panic!("it was opened"),
        Err(error) => error,
    }
}

/// Returns a request to delete the records of one partition below an offset.
pub fn delete_records(topic: &str, partition: i32, before: i64) -> DeleteRecordsRequest {
    let partition = DeleteRecordsPartition::default().with_partition_index(partition).with_offset(before);
    DeleteRecordsRequest::default()
        .with_topics(vec![DeleteRecordsTopic::default().with_name(topic_name(topic)).with_partitions(vec![partition])])
}

/// Returns the code of the answer and the partition's first offset.
pub fn hidden(answer: &DeleteRecordsResponse) -> (i16, i64) {
    let partition = &answer.topics[0].partitions[0];
    (partition.error_code, partition.low_watermark)
}

async fn connect(file: &Path) -> SqliteConnection {
    SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(file).create_if_missing(true)).await.unwrap()
}

/// Returns the file of a closed log with enough records to have many pages.
async fn filled(dir: &tempfile::TempDir) -> std::path::PathBuf {
    let log = Log::with_topic(dir).await;
    let mut raw = log.connect().await;
    for _ in 0..20 {
        assert_eq!(raw.produce("t", 0, Batch::of_size(20_000)).await.error_code, 0);
    }
    let file = log.file.clone();
    log.stop().await;
    file
}

#[tokio::test]
async fn damaged_and_foreign_files_are_refused_and_left_alone() {
    let dir = tempdir().unwrap();
    let good = filled(&dir).await;
    let good = fs::read(good).unwrap();
    let page = 8192;
    let foreign = dir.path().join("foreign.db");
    let mut connection = connect(&foreign).await;
    sqlx::raw_sql("CREATE TABLE t (a); INSERT INTO t VALUES (1)").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let overwritten = |at: usize, length: usize| {
        let mut bytes = good.clone();
        bytes[at..at + length].fill(0xa5);
        bytes
    };
    let rows = [
        ("random bytes", (0..9_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()),
        ("empty", Vec::new()),
        ("shorter than a header", good[..50].to_vec()),
        ("cut in half", good[..good.len() / 2].to_vec()),
        ("another program's", fs::read(&foreign).unwrap()),
        ("the first page damaged behind its header", overwritten(100, 400)),
        ("a page that a start reads damaged", overwritten(page, page)),
    ];
    for (what, bytes) in rows {
        let file = dir.path().join("bad.db");
        fs::write(&file, &bytes).unwrap();
        let error = refusal(&file).await;
        assert_eq!(error.code(), "STORE_CORRUPT", "{what}: {error}");
        assert!(fs::read(&file).unwrap() == bytes, "{what}: the file was changed");
        fs::remove_file(&file).unwrap();
    }
}

#[tokio::test]
async fn a_write_ahead_log_without_its_file_is_refused() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("log.db");
    fs::write(dir.path().join("log.db-wal"), b"what was not written back").unwrap();
    assert_eq!(refusal(&file).await.code(), "STORE_CORRUPT");
    assert!(!file.exists());
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let dir = tempdir().unwrap();
    let file = filled(&dir).await;
    let mut bytes = fs::read(&file).unwrap();
    bytes[60..64].copy_from_slice(&2_u32.to_be_bytes());
    fs::write(&file, &bytes).unwrap();
    assert_eq!(refusal(&file).await.code(), "SCHEMA_AHEAD");
}

#[tokio::test]
async fn unusable_places_and_addresses_are_named() {
    let dir = tempdir().unwrap();
    assert_eq!(refusal(&dir.path().join("no/such/dir/log.db")).await.code(), "DATA_DIR");
    assert_eq!(refusal(dir.path()).await.code(), "DATA_DIR");
    let log = Log::with_topic(&dir).await;
    let second = Settings::new(log.addr, dir.path().join("second.db"));
    assert_eq!(open(second).await.err().map(|error| error.code()), Some("BIND_FAILED"));
    log.stop().await;
}

#[tokio::test]
async fn a_damaged_batch_costs_only_its_partition_from_there_on() {
    let dir = tempdir().unwrap();
    let log = Log::with_topic(&dir).await;
    let mut raw = log.connect().await;
    for _ in 0..5 {
        for partition in 0..3 {
            raw.produce("t", partition, plain(&["a", "b"]).bytes()).await;
        }
    }
    let file = log.file.clone();
    log.stop().await;
    let mut connection = connect(&file).await;
    // One bit of a record in the third batch of partition 1.
    let flip = "UPDATE batch SET bytes = CAST(substr(bytes, 1, 65) || x'7f' || substr(bytes, 67) AS BLOB)
                WHERE base = 4 AND id >> 43 = (SELECT id FROM part WHERE number = 1)";
    assert_eq!(sqlx::raw_sql(flip).execute(&mut connection).await.unwrap().rows_affected(), 1);
    connection.close().await.unwrap();

    let log = Log::with_topic(&dir).await;
    let mut raw = log.connect().await;
    let data = raw.fetch("t", 1, 0).await;
    assert_eq!(data.error_code, 0);
    assert_eq!(batches(&data.records.unwrap()).len(), 2, "what is before it is served");
    for offset in [4, 5] {
        assert_eq!(raw.fetch("t", 1, offset).await.error_code, 56, "offset {offset}");
    }
    assert_eq!(raw.fetch("t", 1, 6).await.error_code, 0, "what is behind it can be asked for");
    assert_eq!(batches(&raw.fetch("t", 0, 0).await.records.unwrap()).len(), 5, "other partitions go on");
    assert_eq!(raw.produce("t", 1, plain(&["c"]).bytes()).await.base_offset, 10);
    log.stop().await;
}

#[tokio::test]
async fn a_full_disk_refuses_produce_and_recovers_by_itself() {
    let dir = tempdir().unwrap();
    let mut settings = settings(&dir);
    settings.max_file_bytes = Some(2_000_000);
    settings.limits.tail_bytes = 0;
    let log = Log::start(settings).await;
    log.handle.ensure_topic("t", 1, TopicSettings::default()).await.unwrap();
    let mut raw = log.connect().await;
    let mut stored = 0;
    let refused = loop {
        let answer = raw.produce("t", 0, Batch::of_size(200_000)).await;
        if answer.error_code != 0 {
            break answer;
        }
        stored += 1;
        assert!(stored < 20, "the disk never filled up");
    };
    assert_eq!((refused.error_code, refused.base_offset), (56, -1));
    // Everything acknowledged is there, nothing else is.
    assert_eq!(raw.fetch("t", 0, stored).await.high_watermark, stored);
    assert_eq!(hidden(&raw.call(2, &delete_records("t", 0, stored - 1)).await), (0, stored - 1));
    let mut probe = log.connect().await;
    let begun = std::time::Instant::now();
    let offset = loop {
        let answer = probe.produce("t", 0, Batch::of_size(200_000)).await;
        if answer.error_code == 0 {
            break answer.base_offset;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "it did not recover");
    };
    assert_eq!(offset, stored, "no gap where the refused batches would have been");
    eventually(PATIENCE, "it says that it can write", async || log.handle.writable()).await;
    let data = probe.fetch("t", 0, stored - 1).await;
    assert_eq!((data.log_start_offset, data.high_watermark), (stored - 1, stored + 1));
    log.stop().await;
}
