//! The writer: one task owns the only writing connection and commits all requests that queued during its last commit.
//!
//! Records, producer state and group offsets of one round share a transaction, so they are consistent after a restart.
//! Answers leave after the commit. Only then do readers see new records, because only the writer moves a partition's
//! bounds.

mod append;
mod control;
mod producers;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::batch::Header;
use crate::catalog::{Partition, Topic};
use crate::error::{Error, Fault, fault};
use crate::settings::TopicSettings;
use crate::shared::Shared;
use crate::storage;
use crate::tail::TailQueue;
use append::Round;
use producers::Producers;

/// Maximum number of requests committed together.
const ROUND_REQUESTS: usize = 256;
/// Bytes of records after which a round accepts no more requests.
const ROUND_BYTES: usize = 8 << 20;
/// Commits between two checks of the write-ahead log's size.
const WAL_LOOK: u64 = 64;
/// Pause between two attempts to write again after the disk refused.
const PROBE: Duration = Duration::from_millis(500);

/// Outcome of one batch: the offset of its first record, or why it was not stored.
pub(crate) type Stored = Result<i64, ResponseError>;

/// Channel for the outcome of a request.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, ResponseError>>;

/// One checked batch to append to a partition.
#[derive(Debug)]
pub(crate) struct Append {
    pub partition: Arc<Partition>,
    pub header: Header,
    pub bytes: Bytes,
}

/// The batches of one produce request; the reply has their order.
#[derive(Debug)]
pub(crate) struct Produce {
    pub batches: Vec<Append>,
    pub reply: oneshot::Sender<Vec<Stored>>,
    /// The request's share of the memory budget; dropped once the batches are on disk.
    pub _memory: Option<OwnedSemaphorePermit>,
}

/// A committed position of a group in one partition.
#[derive(Debug)]
pub(crate) struct Position {
    pub partition: Arc<Partition>,
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: String,
}

/// Positions of one group, committed together.
#[derive(Debug)]
pub(crate) struct Positions {
    pub group: String,
    pub reached: Vec<Position>,
    pub reply: Reply<()>,
}

/// A change with a transaction of its own.
#[derive(Debug)]
pub(crate) enum Control {
    CreateTopic {
        name: String,
        partitions: i32,
        settings: TopicSettings,
        reply: Reply<Arc<Topic>>,
    },
    DeleteTopic {
        topic: Arc<Topic>,
        reply: Reply<()>,
    },
    /// Makes `before` the first offset of a partition and replies with its first offset. Older records are hidden at once
    /// and removed later, in steps.
    DeleteRecords {
        partition: Arc<Partition>,
        before: i64,
        reply: Reply<i64>,
    },
    NewProducer {
        reply: Reply<i64>,
    },
    /// Removes positions of a group, all (`None`) or those in some partitions; replies whether there were any.
    Forget {
        group: String,
        partitions: Option<Vec<i64>>,
        reply: Reply<bool>,
    },
    /// Removes batches that end below `before`, at most one step of them.
    Remove {
        partition: Arc<Partition>,
        before: i64,
        reply: Reply<()>,
    },
    /// Removes one step of what deleted topics and forgotten producers left; replies whether more may be left.
    Sweep {
        reply: Reply<bool>,
    },
}

/// A request to the writer.
#[derive(Debug)]
pub(crate) enum Command {
    Produce(Produce),
    Positions(Positions),
    Control(Control),
}

impl Command {
    fn refuse(self) {
        let code = ResponseError::KafkaStorageError;
        // A client that has disconnected needs no answer.
        match self {
            Self::Produce(p) => _ = p.reply.send(vec![Err(code); p.batches.len()]),
            Self::Positions(p) => _ = p.reply.send(Err(code)),
            Self::Control(Control::CreateTopic { reply, .. }) => _ = reply.send(Err(code)),
            Self::Control(Control::DeleteTopic { reply, .. } | Control::Remove { reply, .. }) => {
                _ = reply.send(Err(code));
            }
            Self::Control(Control::DeleteRecords { reply, .. } | Control::NewProducer { reply }) => {
                _ = reply.send(Err(code));
            }
            Self::Control(Control::Sweep { reply } | Control::Forget { reply, .. }) => _ = reply.send(Err(code)),
        }
    }
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    connection: SqliteConnection,
    commands: mpsc::Receiver<Command>,
    producers: Producers,
    tail: TailQueue,
    commits: u64,
    stop: CancellationToken,
}

impl Writer {
    pub fn new(
        shared: Arc<Shared>,
        connection: SqliteConnection,
        commands: mpsc::Receiver<Command>,
        stop: CancellationToken,
    ) -> Self {
        let tail = TailQueue::new(shared.settings.limits.tail_bytes);
        Self { shared, connection, commands, producers: Producers::default(), tail, commits: 0, stop }
    }

    /// Runs until `stop`, then commits what is queued, checkpoints the write-ahead log and closes the file.
    pub async fn run(mut self) -> Result<(), Error> {
        loop {
            let command = tokio::select! {
                biased;
                command = self.commands.recv() => command,
                () = self.stop.cancelled(), if !self.commands.is_closed() => {
                    self.commands.close();
                    continue;
                }
            };
            let Some(command) = command else { break };
            self.round(command).await?;
        }
        self.finish().await;
        Ok(())
    }

    /// Commits `first` and what else is queued.
    async fn round(&mut self, first: Command) -> Result<(), Error> {
        let mut round = Round::default();
        let mut next = Some(first);
        let control = loop {
            match next.take() {
                Some(Command::Produce(produce)) => round.add_produce(produce),
                Some(Command::Positions(positions)) => round.add_positions(positions),
                Some(Command::Control(control)) => break Some(control),
                None => break None,
            }
            if round.requests() < ROUND_REQUESTS && round.bytes() < ROUND_BYTES {
                next = self.commands.try_recv().ok();
            }
        };
        if round.requests() > 0 {
            self.commit(round).await?;
        }
        match control {
            Some(control) => self.control(control).await,
            None => Ok(()),
        }
    }

    async fn commit(&mut self, round: Round) -> Result<(), Error> {
        if let Err(e) = self.producers.load(&mut self.connection, &round).await {
            round.refuse();
            return self.recover("read producer state", e).await;
        }
        let staged = round.stage(&self.producers);
        if let Some(write) = staged.write() {
            if let Err(e) = write.execute(&mut self.connection).await {
                staged.refuse();
                return self.recover("commit to the event log", e).await;
            }
            self.commits += 1;
            self.bound_wal().await;
        }
        staged.publish(&mut self.producers, &mut self.tail);
        Ok(())
    }

    /// Checkpoints the write-ahead log if readers that never pause have kept SQLite from doing so.
    async fn bound_wal(&mut self) {
        let is_time = self.commits.is_multiple_of(WAL_LOOK);
        if !is_time || storage::wal_bytes(&self.shared.settings.file) <= storage::WAL_LIMIT {
            return;
        }
        // Waits for readers up to the busy timeout; new ones then read from the file.
        if let Err(e) = sqlx::raw_sql("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut self.connection).await {
            tracing::warn!(error = %e, "cannot write back the event log's write-ahead log");
        }
    }

    /// Rolls back and reopens the file until it can be written; requests that arrive meanwhile are refused at once. Returns
    /// an error only if waiting does not fix it.
    async fn recover(&mut self, operation: &'static str, error: sqlx::Error) -> Result<(), Error> {
        let file = self.shared.settings.file.clone();
        if fault(&error) != Fault::Retry {
            return Err(storage::refused(&file, operation, error));
        }
        tracing::error!(error = %error, "the event log cannot be written ({operation}); produce is refused until it recovers");
        self.shared.writable.store(false, Ordering::Relaxed);
        self.producers.clear();
        self.tail.clear();
        loop {
            match self.reopen().await {
                Ok(()) => break,
                Err(error @ Error::Store { .. }) => {
                    tracing::debug!(%error, "the event log still cannot be written");
                }
                Err(error) => return Err(error),
            }
            let until = Instant::now() + PROBE;
            while let Ok(Some(command)) = tokio::time::timeout_at(until, self.commands.recv()).await {
                command.refuse();
            }
            if self.stop.is_cancelled() {
                return Ok(());
            }
        }
        self.shared.writable.store(true, Ordering::Relaxed);
        tracing::info!("the event log can be written again");
        Ok(())
    }

    /// Replaces the connection, because after a full disk one may report only its first failed write. Proves with a small
    /// commit that the new one can write, and aligns the partitions' bounds in memory with the file.
    async fn reopen(&mut self) -> Result<(), Error> {
        let file = self.shared.settings.file.clone();
        // The old connection may still hold a transaction; if the rollback fails, so does the probe below.
        let _ = sqlx::raw_sql("ROLLBACK").execute(&mut self.connection).await;
        let fresh = storage::writer(&file, self.shared.settings.max_file_bytes).await?;
        storage::close(std::mem::replace(&mut self.connection, fresh)).await;
        sqlx::raw_sql("BEGIN IMMEDIATE; UPDATE meta SET value = value + 1 WHERE key = 'probe'; COMMIT;")
            .execute(&mut self.connection)
            .await
            .map_err(|e| storage::refused(&file, "probe the event log", e))?;
        let rows: Vec<(i64, i64, i64, i64)> = sqlx::query_as("SELECT id, start, next, bytes FROM part")
            .fetch_all(&mut self.connection)
            .await
            .map_err(|e| storage::refused(&file, "read the partitions' bounds", e))?;
        // A commit that reported an error may have taken effect; its batches are then in the file.
        let rows: HashMap<i64, _> = rows.into_iter().map(|(id, start, next, bytes)| (id, (start, next, bytes))).collect();
        for topic in self.shared.catalog.all() {
            for partition in &topic.partitions {
                if let Some((start, next, bytes)) = rows.get(&partition.id) {
                    partition.shrink(*start, *bytes);
                    partition.grow(*next, 0);
                }
            }
        }
        Ok(())
    }

    async fn finish(mut self) {
        if let Err(e) = sqlx::raw_sql("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut self.connection).await {
            tracing::warn!(error = %e, "the last checkpoint of the event log failed; the next start does it");
        }
        self.shared.readers.close().await;
        if let Err(e) = self.connection.close().await {
            tracing::warn!(error = %e, "closing the event log failed");
        }
    }
}
