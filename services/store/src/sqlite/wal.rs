//! Bounds the write-ahead log. SQLite restarts it only when no reader uses it, and readers that never pause keep it growing; so
//! above a limit the writer forces a checkpoint.

use std::path::{Path, PathBuf};

use sqlx::{AssertSqlSafe, SqliteConnection};

use super::first;

/// Bytes above which the writer forces a checkpoint; SQLite by itself keeps to 4 MB when readers let it.
const LIMIT: u64 = 16 << 20;
/// Bytes by which it may grow between two tries.
const STEP: u64 = 8 << 20;
/// How long each try waits for running readers, in ms. Nothing is written meanwhile, so the first tries are short; the last is
/// longer than any of our reads may take.
const PATIENCE: [u32; 5] = [250, 500, 1_000, 2_000, 6_000];

/// The write-ahead log beside the file.
#[derive(Debug)]
pub(super) struct Wal {
    path: PathBuf,
    /// Size above which the next try is due.
    due: u64,
    tries: usize,
}

impl Wal {
    /// Returns the log of the store in `file`.
    pub(super) fn of(file: &Path) -> Self {
        let mut path = file.as_os_str().to_owned();
        path.push("-wal");
        Self { path: path.into(), due: LIMIT, tries: 0 }
    }

    /// Writes the log back into the file if it has grown too large. Called after each commit.
    pub(super) async fn bound(&mut self, connection: &mut SqliteConnection) {
        let size = std::fs::metadata(&self.path).map_or(0, |found| found.len());
        if size <= LIMIT {
            (self.due, self.tries) = (LIMIT, 0);
        }
        if size <= self.due {
            return;
        }
        let busy = checkpoint(connection, PATIENCE[self.tries.min(PATIENCE.len() - 1)]).await;
        if matches!(busy, Ok(false)) {
            (self.due, self.tries) = (LIMIT, 0);
            return;
        }
        self.tries += 1;
        self.due = size + STEP;
        if self.tries >= PATIENCE.len() {
            // Our reads have all ended: the reader is another program. The tries become ever rarer.
            self.due = size * 2;
            tracing::warn!(wal.bytes = size, ?busy, "the store's write-ahead log grows: a reader blocks the checkpoint");
        }
    }
}

/// Returns whether a reader blocked the checkpoint for all of `patience` ms.
async fn checkpoint(connection: &mut SqliteConnection, patience: u32) -> sqlx::Result<bool> {
    let wait = AssertSqlSafe(format!("PRAGMA busy_timeout = {patience}"));
    sqlx::query(wait).execute(&mut *connection).await?;
    let rows = sqlx::query_as("PRAGMA wal_checkpoint(TRUNCATE)").fetch_all(&mut *connection).await;
    sqlx::query("PRAGMA busy_timeout = 5000").execute(&mut *connection).await?;
    let (busy, ..): (i64, i64, i64) = first(rows?)?;
    Ok(busy != 0)
}
