//! A bound for the write-ahead log. SQLite starts it anew only when no reader stands behind its end, and readers that never
//! pause keep it growing; so from a size on the writer insists.

use std::path::{Path, PathBuf};

use sqlx::{AssertSqlSafe, SqliteConnection};

use super::first;

/// Size from which on the writer insists; SQLite by itself keeps to 4 MB when readers let it.
const LIMIT: u64 = 16 << 20;
/// How much it may grow between two tries.
const STEP: u64 = 8 << 20;
/// How long a try waits for those that read already, in ms. Nothing is written meanwhile, so the first ones give up soon;
/// the last is longer than any read of ours may take.
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
    /// The one of the store in `file`.
    pub(super) fn of(file: &Path) -> Self {
        let mut path = file.as_os_str().to_owned();
        path.push("-wal");
        Self { path: path.into(), due: LIMIT, tries: 0 }
    }

    /// Called after each commit: writes the log back into the file when it has grown too large.
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
            // Not one of ours, which all have ended: another program's. It is asked again ever more seldom.
            self.due = size * 2;
            tracing::warn!(
                wal.bytes = size,
                ?busy,
                "the store's write-ahead log grows: a reader keeps it from being written back"
            );
        }
    }
}

/// True when a reader was in the way for all of `patience` ms.
async fn checkpoint(connection: &mut SqliteConnection, patience: u32) -> sqlx::Result<bool> {
    let wait = AssertSqlSafe(format!("PRAGMA busy_timeout = {patience}"));
    sqlx::query(wait).execute(&mut *connection).await?;
    let rows = sqlx::query_as("PRAGMA wal_checkpoint(TRUNCATE)").fetch_all(&mut *connection).await;
    sqlx::query("PRAGMA busy_timeout = 5000").execute(&mut *connection).await?;
    let (busy, ..): (i64, i64, i64) = first(rows?)?;
    Ok(busy != 0)
}
