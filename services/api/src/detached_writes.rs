//! Writes that run in a task of their own instead of a request's future, so that a client that goes away cannot cancel them
//! half-way.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::FuturesUnordered;
use minishop_core::ids::Ids;
use minishop_core::refusal::Refusal;
use minishop_store::StoreError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, warn};

use crate::call::Call;
use crate::refusals::{self, Doubt};

/// Maximum number of concurrent writes.
const AT_A_TIME: usize = 8;
/// Maximum number of queued writes.
const WAITING: usize = 1024;

/// A write; its error means that this process cannot write any more.
type DetachedWrite = BoxFuture<'static, anyhow::Result<()>>;

/// The queue of detached writes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DetachedWrites {
    queue: mpsc::Sender<DetachedWrite>,
    closed: CancellationToken,
    ids: Arc<dyn Ids>,
}

/// Runs the queued writes.
#[derive(Debug)]
pub struct DetachedWriteTask {
    queue: mpsc::Receiver<DetachedWrite>,
    closed: CancellationToken,
}

impl DetachedWrites {
    /// Creates the queue and its task.
    pub fn new(ids: Arc<dyn Ids>) -> (Self, DetachedWriteTask) {
        let (sender, queue) = mpsc::channel(WAITING);
        let closed = CancellationToken::new();
        (Self { queue: sender, closed: closed.clone(), ids }, DetachedWriteTask { queue, closed })
    }

    /// Runs a write to its end, even if the caller goes away; waits for its outcome until the call's deadline.
    ///
    /// If the outcome is unknown at the deadline, the refusal says what `doubt` may have happened. An outer error of `write` ends the
    /// process.
    pub async fn run<T: Send + 'static>(
        &self,
        call: &Call,
        doubt: Doubt,
        write: impl Future<Output = anyhow::Result<Result<T, Refusal>>> + Send + 'static,
    ) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        let write = async move {
            let outcome = write.await?;
            // The caller may be gone; the write is done anyway.
            let _ = answer.send(outcome);
            Ok(())
        };
        let wait = || refusals::retry_after(self.ids.as_ref());
        if self.closed.is_cancelled() {
            return Err(refusals::shutting_down(wait()));
        }
        self.queue.try_send(write.instrument(call.span.clone()).boxed()).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => refusals::too_many_writes(wait()),
            mpsc::error::TrySendError::Closed(_) => refusals::shutting_down(wait()),
        })?;
        match timeout_at(call.deadline, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(refusals::outcome_unknown(doubt)),
            Err(_) => Err(refusals::write_late(doubt)),
        }
    }

    /// Runs one transaction of the store, and converts its failure to a refusal.
    pub async fn write<T: Send + 'static>(
        &self,
        call: &Call,
        write: impl Future<Output = minishop_store::Result<T>> + Send + 'static,
    ) -> Result<T, Refusal> {
        let worded = async move {
            match write.await {
                Err(error) if error.is_sync_failure() => Err(error.into()),
                outcome => Ok(outcome.map_err(|error| {
                    warn!(error = ?error, "a write failed");
                    if matches!(error, StoreError::Unknown { .. }) {
                        refusals::outcome_unknown(Doubt::Command)
                    } else {
                        refusals::store(&error)
                    }
                })),
            }
        };
        self.run(call, Doubt::Command, worded).await
    }

    /// Refuses new writes. The task ends after the queued ones.
    pub fn close(&self) {
        self.closed.cancel();
    }
}

impl DetachedWriteTask {
    /// Runs writes until the queue is closed and empty. Fails if the disk does not sync: then this process cannot be trusted.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let mut running = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(done) = running.next() => done?,
                write = self.queue.recv(), if running.len() < AT_A_TIME => match write {
                    Some(write) => running.push(write),
                    None => break,
                },
                () = self.closed.cancelled(), if !self.queue.is_closed() => self.queue.close(),
            }
        }
        while let Some(done) = running.next().await {
            done?;
        }
        Ok(())
    }
}
