//! Opening a store, and refusals to open it.

use std::path::Path;

use minishop_store::error::OpenError;
use minishop_store::postgres;
use minishop_store::{StoreError, sqlite};
use minishop_testkit::database::{Engine, settings};
use minishop_testkit::rows::{clock, order, orders};
use sqlx::{Connection, SqliteConnection};

use crate::support::{Fixture, on};

pub async fn an_open_store_opens_again_with_its_rows(f: Fixture) {
    let made = order("a", "k1");
    f.accept(std::slice::from_ref(&made)).await;
    let again = f.open_again(false).await.unwrap();
    assert_eq!(again.reads.order(&made.head.client_id, made.head.order_id).await.unwrap(), f.get(&made).await);
}

pub async fn a_newer_schema_is_refused(f: Fixture) {
    f.sql("UPDATE _sqlx_migrations SET version = 9999 WHERE version = (SELECT max(version) FROM _sqlx_migrations)").await;
    for migrate in [true, false] {
        let error = f.open_again(migrate).await.unwrap_err();
        assert!(matches!(error, OpenError::SchemaAhead { store: 9999, binary } if binary < 9999), "{error}");
        assert_eq!(error.code(), "SCHEMA_AHEAD");
    }
}

pub async fn an_older_schema_is_refused_without_migration(f: Fixture) {
    f.sql("DELETE FROM _sqlx_migrations").await;
    let error = f.open_again(false).await.unwrap_err();
    assert!(matches!(error, OpenError::SchemaBehind { store: 0, .. }), "{error}");
}

pub async fn a_store_with_other_outbox_shards_is_refused(f: Fixture) {
    f.sql("INSERT INTO outbox_shard (shard) VALUES (4)").await;
    let error = f.open_again(false).await.unwrap_err();
    assert!(matches!(error, OpenError::Unsafe { setting: "outbox_shard", .. }), "{error:?}");
    assert!(error.to_string().contains("0 1 2 3 4 16"), "{error}");
}

async fn refused_untouched(path: &Path) {
    let before = std::fs::read(path).unwrap();
    for migrate in [true, false] {
        let error = sqlite::open(path, clock(), migrate).await.unwrap_err();
        assert_eq!(error.code(), "STORE_CORRUPT", "{error:?}");
    }
    assert_eq!(std::fs::read(path).unwrap(), before);
}

async fn closed_file(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("minishop.db");
    let store = sqlite::open(&path, clock(), true).await.unwrap();
    store.orders.intake().await.unwrap().accept(&orders("a", 0..200)).await.unwrap();
    drop(store);
    // A separate connection checkpoints the write-ahead log into the file.
    let mut connection = SqliteConnection::connect(path.to_str().unwrap()).await.unwrap();
    let busy = async |connection: &mut SqliteConnection| {
        let (busy, ..): (i64, i64, i64) = sqlx::query_as("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(connection).await.unwrap();
        busy != 0
    };
    while busy(&mut connection).await {}
    connection.close().await.unwrap();
    path
}

#[tokio::test]
async fn after_a_checkpoint_the_file_alone_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("minishop.db");
    let store = sqlite::open(&path, clock(), true).await.unwrap();
    let made = orders("a", 0..200);
    store.orders.intake().await.unwrap().accept(&made).await.unwrap();
    sqlite::checkpoint(&path).await;
    let log = std::fs::metadata(dir.path().join("minishop.db-wal")).map_or(0, |file| file.len());
    assert_eq!(log, 0);
    let copy = dir.path().join("copy.db");
    std::fs::copy(&path, &copy).unwrap();
    let copy = sqlite::open(&copy, clock(), false).await.unwrap();
    assert!(copy.reads.order(&made[199].head.client_id, made[199].head.order_id).await.unwrap().is_some());
}

/// Reads on two connections in turn, each longer than a commit takes, so that some reader always keeps the write-ahead log
/// from being reset.
async fn read_without_pause(path: std::path::PathBuf, stop: tokio_util::sync::CancellationToken) {
    let mut reads = SqliteConnection::connect(path.to_str().unwrap()).await.unwrap();
    let mut next = SqliteConnection::connect(path.to_str().unwrap()).await.unwrap();
    let begin = "BEGIN; SELECT count(*) FROM audit; \
        WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 300000) SELECT count(*) FROM n";
    sqlx::raw_sql(begin).execute(&mut reads).await.unwrap();
    while !stop.is_cancelled() {
        sqlx::raw_sql(begin).execute(&mut next).await.unwrap();
        sqlx::raw_sql("ROLLBACK").execute(&mut reads).await.unwrap();
        std::mem::swap(&mut reads, &mut next);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_write_ahead_log_is_bounded_under_readers_that_never_pause() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("minishop.db");
    let store = sqlite::open(&path, clock(), true).await.unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    #[expect(clippy::disallowed_methods, reason = "the test is who ends this task")]
    let reader = tokio::spawn(read_without_pause(path, stop.clone()));
    let mut intake = store.orders.intake().await.unwrap();
    let mut largest = 0;
    for n in 0..120 {
        let mut batch = orders("a", n * 20..(n + 1) * 20);
        for order in &mut batch {
            order.items = format!("[{}]", "1,".repeat(25_000) + "1");
        }
        intake.accept(&batch).await.unwrap();
        largest = largest.max(std::fs::metadata(dir.path().join("minishop.db-wal")).unwrap().len());
    }
    stop.cancel();
    reader.await.unwrap();
    // The writer forces checkpoints from 16 MiB on, and every 8 MiB with a longer timeout; the fifth one outlasts any read.
    assert!(largest < 64 << 20, "it grew to {largest} bytes while 120 MB were written");
}

#[tokio::test]
async fn random_bytes_are_refused_and_stay_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("minishop.db");
    std::fs::write(&path, (0..20_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect::<Vec<_>>())
        .unwrap();
    refused_untouched(&path).await;
}

#[tokio::test]
async fn half_a_file_is_refused_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = closed_file(dir.path()).await;
    let whole = std::fs::read(&path).unwrap();
    let half = dir.path().join("half.db");
    std::fs::write(&half, &whole[..whole.len() / 2]).unwrap();
    refused_untouched(&half).await;
}

#[tokio::test]
async fn a_damaged_page_is_refused_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = closed_file(dir.path()).await;
    let mut bytes = std::fs::read(&path).unwrap();
    let damaged = dir.path().join("damaged.db");
    let page = bytes.len() / 4096 / 2 * 4096;
    bytes[page..page + 512].fill(0x5a);
    std::fs::write(&damaged, bytes).unwrap();
    refused_untouched(&damaged).await;
}

#[tokio::test]
async fn another_programs_file_is_refused_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("minishop.db");
    let url = format!("{}?mode=rwc", path.to_str().unwrap());
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    sqlx::query("CREATE TABLE notes (text)").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    refused_untouched(&path).await;
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = sqlite::open(&dir.path().join("absent/minishop.db"), clock(), true).await.unwrap_err();
    assert_eq!(error.code(), "DATA_DIR", "{error:?}");
}

#[tokio::test]
async fn a_server_that_is_away_is_tried_again() {
    // Nothing listens on port 1 of the loopback.
    let error = postgres::connect("postgres://postgres@127.0.0.1:1/x", &settings(true)).await.unwrap_err();
    assert!(error.is_retry(), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_not_there_is_refused() {
    on(Engine::Postgres, async |f| {
        let url = f.url().replace("/test_", "/absent_");
        let error = postgres::connect(&url, &settings(true)).await.unwrap_err();
        assert_eq!(error.code(), "DEPENDENCY_REFUSED", "{error:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_does_not_wait_for_the_disk_is_refused() {
    on(Engine::Postgres, async |f| {
        let name = f.name();
        f.sql(&format!("ALTER DATABASE {name} SET synchronous_commit = off")).await;
        let error = f.open_again(false).await.unwrap_err();
        assert!(matches!(error, OpenError::Unsafe { setting: "synchronous_commit", .. }), "{error:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_connections_are_made_again() {
    on(Engine::Postgres, async |f| {
        let batch = [order("a", "k1")];
        let mut intake = f.store.orders.intake().await.unwrap();
        intake.accept(&batch).await.unwrap();
        f.store.inbox.begin("worker").await.unwrap().commit().await.unwrap();
        f.cut_stores().await;
        f.left_alone().await;
        // An idle connection is checked before use; the loss of any other one shows in the statement.
        let first = intake.accept(&batch).await;
        assert!(matches!(first, Ok(_) | Err(StoreError::Unknown { .. } | StoreError::Retry { .. })), "{first:?}");
        assert!(intake.accept(&batch).await.unwrap().is_empty(), "the same batch runs again");
        f.store.inbox.begin("worker").await.unwrap().commit().await.unwrap();
        assert!(f.get(&batch[0]).await.is_some());
    })
    .await;
}
