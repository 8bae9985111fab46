//! Writes that run in a task of their own instead of a request's future, so that a client that goes away cannot cancel them
//! half-way.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::FuturesUnordered;
use minishop_core::ids::Ids;
use minishop_core::refusal::{Code, Refusal};
use minishop_store::StoreError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, warn};

use crate::call::Call;
use crate::intake::{retry_after, store_refusal};

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
    /// `doubt` says what may have happened, and what to do, if no outcome is known. An outer error of `write` ends the process.
    pub async fn run<T: Send + 'static>(
        &self,
        call: &Call,
        doubt: &'static str,
        write: impl Future<Output = anyhow::Result<Result<T, Refusal>>> + Send + 'static,
    ) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        let write = async move {
            let outcome = write.await?;
            // The caller may be gone; the write is done anyway.
            let _ = answer.send(outcome);
            Ok(())
        };
        let wait = || retry_after(self.ids.as_ref());
        if self.closed.is_cancelled() {
            return Err(shutting_down(wait()));
        }
        self.queue.try_send(write.instrument(call.span.clone()).boxed()).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => overloaded(wait()),
            mpsc::error::TrySendError::Closed(_) => shutting_down(wait()),
        })?;
        match timeout_at(call.deadline, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(outcome_unknown(doubt)),
            Err(_) => Err(Refusal::new(Code::DeadlineExceeded, format!("The deadline passed, so {doubt}."))),
        }
    }

    /// Runs one transaction of the store, and converts its failure to a refusal.
    pub async fn write<T: Send + 'static>(
        &self,
        call: &Call,
        write: impl Future<Output = minishop_store::Result<T>> + Send + 'static,
    ) -> Result<T, Refusal> {
        const UNKNOWN_OUTCOME: &str = "it may have taken effect; check before you send the request again";
        let worded = async move {
            match write.await {
                Err(error) if error.is_sync_failure() => Err(error.into()),
                outcome => Ok(outcome.map_err(|error| {
                    warn!(error = ?error, "a write failed");
                    if matches!(error, StoreError::Unknown { .. }) {
                        outcome_unknown(UNKNOWN_OUTCOME)
                    } else {
                        store_refusal(&error)
                    }
                })),
            }
        };
        self.run(call, UNKNOWN_OUTCOME, worded).await
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

/// Builds the refusal of a write whose outcome is unknown.
pub fn outcome_unknown(doubt: &str) -> Refusal {
    Refusal::new(Code::OutcomeUnknown, format!("The connection to the store was lost during the commit, so {doubt}."))
}

fn overloaded(wait: Duration) -> Refusal {
    let detail = "Too many requests wait to be written; nothing was written, send the request again later.";
    Refusal::new(Code::Overloaded, detail).after(wait)
}

fn shutting_down(wait: Duration) -> Refusal {
    Refusal::new(Code::ShuttingDown, "This process is shutting down; nothing was written, send the request again.").after(wait)
}
