//! A crowded lot, for tests that count the instructions of a statement in SQLite's virtual machine, which do not depend on time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sqlx::SqliteConnection;

use super::connect;

/// The parked events.
pub(super) const WAITING: usize = 20_000;
/// The most instructions of a statement: a scan of all parked events takes ten times as many.
pub(super) const STEPS: usize = 20_000;

const FILL: &str = "WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < ?1) \
    INSERT INTO parked (consumer, record_key, blocks, state, event_id, topic, partition, source_offset, raw_headers, \
    next_attempt_at, parked_at) SELECT 'worker', CAST(printf('%08d', n % ?2) AS BLOB), 1, \
    CASE WHEN n < ?2 THEN 'retrying' ELSE 'waiting' END, CAST(printf('%016d', n) AS BLOB), 'orders.created', 0, n, x'00', \
    CASE WHEN n < ?2 THEN n END, n FROM numbers";

/// A store's connection, with [`WAITING`] parked events of some keys: the first of each key is due, the others wait behind it.
pub(super) struct Crowd {
    pub connection: SqliteConnection,
    steps: Arc<AtomicUsize>,
    _dir: tempfile::TempDir,
}

impl Crowd {
    pub async fn of(keys: usize) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut connection = connect::prepare(&dir.path().join("minishop.db"), true).await.expect("a fresh file opens");
        let number = |n: usize| i64::try_from(n).expect("few");
        let fill = sqlx::query(FILL).bind(number(WAITING)).bind(number(keys));
        fill.execute(&mut connection).await.expect("they fit");
        let steps = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&steps);
        connection.lock_handle().await.expect("it is idle").set_progress_handler(10, move || {
            counted.fetch_add(10, Ordering::SeqCst);
            true
        });
        Self { connection, steps, _dir: dir }
    }

    /// Returns the instructions that have run since the last call.
    pub fn steps(&self) -> usize {
        self.steps.swap(0, Ordering::SeqCst)
    }

    /// Returns the id of the event with this number.
    pub fn event(number: usize) -> Vec<u8> {
        format!("{number:016}").into_bytes()
    }
}
