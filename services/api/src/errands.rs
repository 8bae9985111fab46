//! Writes that no request's future may hold: they run one after the other in a task of their own, so that a client that goes away
//! cancels none of them half-way.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use minishop_core::refusal::{Code, Refusal};
use minishop_platform::store;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, warn};

use crate::call::Call;
use crate::intake::{retry_after, store_refusal};

/// How many may wait; an operator is no crowd.
const QUEUE: usize = 64;

type Errand = BoxFuture<'static, ()>;

/// Where errands queue.
#[derive(Debug)]
pub struct Errands {
    queue: mpsc::Sender<Errand>,
    waiting: Mutex<Option<mpsc::Receiver<Errand>>>,
    closed: CancellationToken,
}

impl Default for Errands {
    fn default() -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        Self { queue, waiting: Mutex::new(Some(waiting)), closed: CancellationToken::new() }
    }
}

impl Errands {
    /// Runs a write to its end, whatever becomes of the call; the answer is of use until the call's deadline.
    pub async fn run<T: Send + 'static>(
        &self,
        call: &Call,
        ids: &dyn minishop_core::ids::Ids,
        write: impl Future<Output = store::Result<T>> + Send + 'static,
    ) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        let errand = async move {
            // Nobody may listen any more; the write is done all the same.
            let _ = answer.send(write.await);
        };
        let busy = || {
            let detail = "More operations wait than can be begun; nothing was written, send the request again later.";
            Refusal::new(Code::Overloaded, detail).after(retry_after(ids))
        };
        self.queue.try_send(errand.instrument(call.span.clone()).boxed()).map_err(|_| busy())?;
        match tokio::time::timeout_at(call.deadline, answered).await {
            Ok(Ok(Ok(done))) => Ok(done),
            Ok(Ok(Err(error))) => {
                warn!(error = ?error, "an operator's write failed");
                Err(match error {
                    store::StoreError::Unknown { .. } => outcome_unknown(),
                    other => store_refusal(&other),
                })
            }
            Ok(Err(_)) => Err(outcome_unknown()),
            Err(_) => {
                let detail = "The deadline passed, so it may have been done; look before you send it again.";
                Err(Refusal::new(Code::DeadlineExceeded, detail))
            }
        }
    }

    /// Runs errands until the queue is closed and empty.
    pub async fn serve(&self) -> anyhow::Result<()> {
        let Some(mut waiting) = self.waiting.lock().await.take() else { return Ok(()) };
        loop {
            let errand = tokio::select! {
                biased;
                errand = waiting.recv() => errand,
                () = self.closed.cancelled() => waiting.try_recv().ok(),
            };
            match errand {
                Some(errand) => errand.await,
                None => return Ok(()),
            }
        }
    }

    /// Lets [`Errands::serve`] end once nothing waits.
    pub fn close(&self) {
        self.closed.cancel();
    }
}

fn outcome_unknown() -> Refusal {
    let detail =
        "The connection to the store was lost during the commit, so it may have been done; look before you send it again.";
    Refusal::new(Code::OutcomeUnknown, detail)
}
