//! The one writer: lends its connection to one unit of work after another, and commits many units at once.
//!
//! Each unit runs in a savepoint inside the group's transaction. A unit is answered after the group's commit, so units share an
//! fsync. A unit that is dropped, fails, or keeps the connection for longer than [`LONGEST_LOAN`] is rolled back alone; the others
//! wait at most that long for it, and for the step that it runs at that moment.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::{Connection, SqliteConnection};
use tokio::sync::{Mutex, MutexGuard, mpsc, oneshot};

use super::super::{Result, StoreError};
use super::connect;
use super::failed;
use super::health::Health;
use super::wal::Wal;

/// How long a unit may keep the connection before it is taken back.
const LONGEST_LOAN: Duration = Duration::from_secs(5);
/// The most units that share a commit.
const GROUP: usize = 64;
/// A group that has run this long takes no further unit: its first ones wait for their answer.
const LONGEST_GROUP: Duration = Duration::from_millis(20);
/// The most units that queue; further callers wait to enter.
const QUEUE: usize = 256;

/// A handle to the writer. Clones share the one connection; it closes when the last clone is dropped.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Request>,
    health: Arc<Health>,
}

#[derive(Debug)]
struct Request {
    lend: oneshot::Sender<Result<Unit, Broken>>,
}

type Slot = Arc<Mutex<Option<SqliteConnection>>>;
type Ack = oneshot::Sender<Result<(), Broken>>;

/// One unit of work, with the connection on loan. Dropping it rolls the unit back.
#[derive(Debug)]
pub(super) struct Unit {
    slot: Slot,
    keep: oneshot::Sender<Ack>,
    sound: bool,
}

impl Writer {
    /// Starts the writer's task.
    pub(super) fn start(path: &Path, connection: SqliteConnection) -> Self {
        let (queue, requests) = mpsc::channel(QUEUE);
        let health = Arc::new(Health::default());
        let state =
            State { path: path.to_owned(), connection: Some(connection), dead: None, health: health.clone(), wal: Wal::of(path) };
        #[expect(clippy::disallowed_methods, reason = "lives as long as the store: ends when its last handle is dropped")]
        tokio::spawn(state.serve(requests));
        Self { queue, health }
    }

    /// Returns what the writer knows of the disk.
    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    /// Runs one step as a unit, and waits until it is on disk.
    pub(super) async fn write<T>(
        &self,
        operation: &'static str,
        work: impl AsyncFnOnce(&mut SqliteConnection) -> sqlx::Result<T>,
    ) -> Result<T> {
        let mut unit = self.unit(operation).await?;
        let value = unit.step(operation, work).await?;
        unit.commit(operation).await?;
        Ok(value)
    }

    /// Waits for the connection and begins a unit of work.
    pub(super) async fn unit(&self, operation: &'static str) -> Result<Unit> {
        let (lend, loan) = oneshot::channel();
        let gone = || Broken::Retry("the writer has ended".into()).during(operation);
        self.queue.send(Request { lend }).await.map_err(|_| gone())?;
        loan.await.map_err(|_| gone())?.map_err(|broken| broken.during(operation))
    }
}

impl Unit {
    /// Runs one step. After a step that failed or was cancelled, every later one is refused, and the unit cannot commit.
    pub(super) async fn step<T>(
        &mut self,
        operation: &'static str,
        work: impl AsyncFnOnce(&mut SqliteConnection) -> sqlx::Result<T>,
    ) -> Result<T> {
        let refuse = |why: &str| Broken::Retry(why.into()).during(operation);
        if !std::mem::replace(&mut self.sound, false) {
            return Err(refuse("an earlier step of the transaction failed"));
        }
        let mut connection = MutexGuard::try_map(self.slot.lock().await, Option::as_mut)
            .map_err(|_| refuse("the transaction took too long and was rolled back"))?;
        let value = work(&mut connection).await.map_err(failed(operation))?;
        self.sound = true;
        Ok(value)
    }

    /// Hands the connection back and waits until the unit is on disk.
    pub(super) async fn commit(self, operation: &'static str) -> Result<()> {
        if !self.sound {
            return Err(Broken::Retry("a step of the transaction failed".into()).during(operation));
        }
        let (ack, answer) = oneshot::channel();
        let late = || Broken::Retry("the transaction took too long and was rolled back".into());
        self.keep.send(ack).map_err(|_| late().during(operation))?;
        // The writer's task has ended, because the runtime shuts down: the commit may have run or not.
        let lost = |_| StoreError::Unknown { operation, source: anyhow::anyhow!("the writer ended during the commit") };
        answer.await.map_err(lost)?.map_err(|broken| broken.during(operation))
    }
}

struct State {
    path: PathBuf,
    connection: Option<SqliteConnection>,
    dead: Option<Broken>,
    health: Arc<Health>,
    wal: Wal,
}

impl State {
    async fn serve(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(first) = requests.recv().await {
            if let Err(broken) = self.ready().await {
                self.health.failed();
                let _ = first.lend.send(Err(broken));
                continue;
            }
            let mut acks = Vec::new();
            let outcome = self.group(first, &mut requests, &mut acks).await;
            let committed = outcome.is_ok() && !acks.is_empty();
            if let Err(broken) = &outcome {
                self.health.failed();
                tracing::warn!(error = %broken.text(), write.count = acks.len(), "a group of writes was rolled back");
                self.reset(broken).await;
            }
            if committed {
                self.health.committed();
            }
            for ack in acks {
                let _ = ack.send(outcome.clone());
            }
            if let Some(connection) = self.connection.as_mut().filter(|_| committed) {
                self.wal.bound(connection).await;
            }
        }
        if let Some(mut connection) = self.connection {
            let _ = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut connection).await;
            let _ = connection.close().await;
        }
    }

    /// Reopens the connection after an error.
    async fn ready(&mut self) -> Result<(), Broken> {
        if let Some(dead) = &self.dead {
            return Err(dead.clone());
        }
        if self.connection.is_none() {
            self.connection = Some(connect::writer(&self.path).await.map_err(Broken::from)?);
        }
        Ok(())
    }

    /// Runs units until none waits or the group is full, then commits those that ask for it.
    async fn group(&mut self, first: Request, requests: &mut mpsc::Receiver<Request>, acks: &mut Vec<Ack>) -> Result<(), Broken> {
        if let Err(broken) = self.run("BEGIN IMMEDIATE; SAVEPOINT unit").await {
            let _ = first.lend.send(Err(broken.clone()));
            return Err(broken);
        }
        let started = Instant::now();
        let mut next = Some(first);
        for n in 1.. {
            let Some(request) = next.take() else { break };
            let kept = self.lend(request).await;
            let undo = kept.is_none();
            acks.extend(kept);
            if n < GROUP && started.elapsed() < LONGEST_GROUP {
                next = requests.try_recv().ok();
            }
            let between = match (undo, next.is_some()) {
                (true, _) => self.run("ROLLBACK TO unit").await,
                (false, true) => self.run("RELEASE unit; SAVEPOINT unit").await,
                (false, false) => Ok(()),
            };
            if let Err(broken) = between {
                if let Some(request) = next {
                    let _ = request.lend.send(Err(broken.clone()));
                }
                return Err(broken);
            }
        }
        self.run(if acks.is_empty() { "ROLLBACK" } else { "COMMIT" }).await
    }

    /// Lends the connection for one unit; returns where to answer if the unit asks for its commit.
    async fn lend(&mut self, request: Request) -> Option<Ack> {
        let slot = Arc::new(Mutex::new(self.connection.take()));
        let (keep, kept) = oneshot::channel();
        let lent = request.lend.send(Ok(Unit { slot: slot.clone(), keep, sound: true })).is_ok();
        let ack = if lent { tokio::time::timeout(LONGEST_LOAN, kept).await.ok().and_then(Result::ok) } else { None };
        self.connection = slot.lock().await.take();
        ack
    }

    async fn run(&mut self, sql: &'static str) -> Result<(), Broken> {
        let Some(connection) = &mut self.connection else { return Err(Broken::Retry("no connection".into())) };
        sqlx::query(sql).execute(connection).await.map(drop).map_err(Broken::from)
    }

    /// Drops the connection after an error: SQLite may report a fault on an old connection that has passed on the disk.
    async fn reset(&mut self, broken: &Broken) {
        if matches!(broken, Broken::Sync(_)) {
            self.dead = Some(broken.clone());
        }
        if let Some(mut connection) = self.connection.take() {
            let _ = sqlx::query("ROLLBACK").execute(&mut connection).await;
            let _ = connection.close().await;
        }
    }
}

/// An error that several units receive.
#[derive(Debug, Clone)]
pub(super) enum Broken {
    /// A retry may succeed.
    Retry(String),
    /// A retry does not help.
    Fail(String),
    /// A value is to blame; a retry does not help.
    Refused(String),
    /// The disk did not sync.
    Sync(String),
}

impl From<sqlx::Error> for Broken {
    /// Classifies an error by SQLite's result code.
    fn from(error: sqlx::Error) -> Self {
        let text = error.to_string();
        match (&error, extended_code(&error)) {
            // SQLITE_IOERR_FSYNC and SQLITE_IOERR_DIR_FSYNC
            (_, Some(1034 | 1290)) => Self::Sync(text),
            // BUSY, LOCKED, NOMEM, READONLY, INTERRUPT, IOERR, FULL, CANTOPEN, PROTOCOL, SCHEMA
            (_, Some(code)) if matches!(code & 0xff, 5..=10 | 13..=15 | 17) => Self::Retry(text),
            (sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed | sqlx::Error::Io(_), _) => {
                Self::Retry(text)
            }
            // TOOBIG, CONSTRAINT, MISMATCH, RANGE
            (_, Some(code)) if matches!(code & 0xff, 18..=20 | 25) => Self::Refused(text),
            _ => Self::Fail(text),
        }
    }
}

impl Broken {
    /// Makes the error of the operation that met it.
    pub(super) fn during(self, operation: &'static str) -> StoreError {
        match self {
            Self::Retry(text) => StoreError::retry(operation, anyhow::anyhow!(text)),
            Self::Fail(text) => StoreError::fail(operation, anyhow::anyhow!(text)),
            Self::Refused(text) => StoreError::value_refused(operation, anyhow::anyhow!("the database refuses a value: {text}")),
            Self::Sync(text) => StoreError::sync_failed(operation, text),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Retry(text) | Self::Fail(text) | Self::Refused(text) | Self::Sync(text) => text,
        }
    }
}

/// Returns the low byte of SQLite's result code.
pub(super) fn primary_code(error: &sqlx::Error) -> Option<i32> {
    extended_code(error).map(|code| code & 0xff)
}

fn extended_code(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error()?.code()?.parse().ok()
}
