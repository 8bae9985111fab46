//! The task that cancels: it owns the connections, and finishes what it began whoever waits for it.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use minishop_core::backoff::Backoff;
use minishop_core::ids::Ids;
use minishop_core::refusal::{Code, Refusal};
use minishop_platform::store::{self, Orders, OutboxRow, StoreError, Transition};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::intake::{HandOver, retry_after};

/// How many orders are cancelled at a time; each has a connection of its own.
const AT_A_TIME: usize = 4;
/// How many requests may wait.
const WAITING: usize = 1024;
/// How often a cancel is tried that certainly wrote nothing: a first try may meet a stale connection.
const TRIES: u32 = 3;
/// How long before its deadline a request is told how it stands: its own clock would only say that the time is up.
const MARGIN: Duration = Duration::from_millis(20);

/// Where requests to cancel wait. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cancels {
    jobs: mpsc::Sender<Job>,
    closed: CancellationToken,
    ids: Arc<dyn Ids>,
}

/// A change and the request that waits for it.
#[derive(Debug)]
struct Job {
    change: Transition,
    detail: String,
    deadline: Instant,
    reply: oneshot::Sender<Result<bool, Refusal>>,
}

/// The receiving end of an answer.
#[derive(Debug)]
pub struct Ticket {
    answer: oneshot::Receiver<Result<bool, Refusal>>,
    deadline: Instant,
}

impl Ticket {
    /// Waits for the answer: whether this request changed the order. Dropping the ticket cancels nothing.
    pub async fn outcome(self) -> Result<bool, Refusal> {
        match timeout_at(self.deadline, self.answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(outcome_unknown()),
            Err(_) => Err(deadline_exceeded()),
        }
    }
}

impl Cancels {
    /// Queues a change, with a JSON object for the timeline, or says at once why not.
    pub fn submit(&self, change: Transition, detail: String, deadline: Instant) -> Result<Ticket, Refusal> {
        let (reply, answer) = oneshot::channel();
        let wait = || retry_after(self.ids.as_ref());
        if self.closed.is_cancelled() {
            return Err(shutting_down(wait()));
        }
        self.jobs.try_send(Job { change, detail, deadline, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => overloaded(wait()),
            mpsc::error::TrySendError::Closed(_) => shutting_down(wait()),
        })?;
        Ok(Ticket { answer, deadline })
    }

    /// Takes no more requests. The task ends when what waits is written.
    pub fn close(&self) {
        self.closed.cancel();
    }
}

/// Writes what is queued.
pub struct CancelTask {
    jobs: mpsc::Receiver<Job>,
    writer: Writer,
    closed: CancellationToken,
}

impl fmt::Debug for CancelTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelTask").field("waiting", &self.jobs.len()).finish_non_exhaustive()
    }
}

struct Writer {
    orders: Arc<dyn Orders>,
    ids: Arc<dyn Ids>,
    hand_over: HandOver,
    /// Connections that nobody uses.
    idle: Mutex<Vec<Box<dyn store::Cancels>>>,
}

impl CancelTask {
    /// Makes the task and its handle. Connections are made when they are needed.
    pub fn new(orders: Arc<dyn Orders>, ids: Arc<dyn Ids>, hand_over: HandOver) -> (Cancels, Self) {
        let (sender, jobs) = mpsc::channel(WAITING);
        let closed = CancellationToken::new();
        let handle = Cancels { jobs: sender, closed: closed.clone(), ids: ids.clone() };
        (handle, Self { jobs, writer: Writer { orders, ids, hand_over, idle: Mutex::default() }, closed })
    }

    /// Writes until it is closed and nothing waits. Fails when the disk does not sync: then nothing here can be trusted any more.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let mut running = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(done) = running.next() => done?,
                job = self.jobs.recv(), if running.len() < AT_A_TIME => match job {
                    Some(job) => running.push(self.writer.finish(job)),
                    None => break,
                },
                () = self.closed.cancelled(), if !self.jobs.is_closed() => self.jobs.close(),
            }
        }
        while let Some(done) = running.next().await {
            done?;
        }
        Ok(())
    }
}

impl Writer {
    /// Tries until the outcome is known or its request must be answered.
    async fn finish(&self, job: Job) -> anyhow::Result<()> {
        let (mut tries, mut doubt) = (0, false);
        let until = job.deadline - MARGIN;
        let outcome = loop {
            if Instant::now() >= until {
                break Err(if doubt { outcome_unknown() } else { unavailable() });
            }
            match self.try_once(&job).await {
                Ok(changed) => break Ok(changed),
                Err(source) if source.is_sync_failure() => {
                    error!(error = ?source, "the disk does not sync; this process cannot go on");
                    let _ = job.reply.send(Err(outcome_unknown()));
                    return Err(source.into());
                }
                Err(source @ StoreError::Fail { .. }) => {
                    error!(order.id = %job.change.order_id, error = ?source, "the store refused to cancel an order");
                    break Err(internal());
                }
                Err(source) => {
                    tries += 1;
                    doubt |= matches!(source, StoreError::Unknown { .. });
                    if !doubt && !source.is_contended() && tries >= TRIES {
                        warn!(order.id = %job.change.order_id, error = ?source, "the store did not cancel an order");
                        break Err(unavailable());
                    }
                    tokio::time::sleep_until(until.min(Instant::now() + self.backoff(tries))).await;
                }
            }
        };
        let _ = job.reply.send(outcome);
        Ok(())
    }

    async fn try_once(&self, job: &Job) -> Result<bool, StoreError> {
        let idle = self.idle.lock().expect("no holder of the connections panics").pop();
        let mut connection = match idle {
            Some(connection) => connection,
            // To be refused a connection says nothing about the order.
            None => self.orders.cancels().await?,
        };
        let place = connection.cancel(&job.change, &job.detail).await?;
        self.idle.lock().expect("no holder of the connections panics").push(connection);
        if let Some(id) = place {
            (self.hand_over)(vec![OutboxRow { id, event: job.change.event.clone() }]);
        }
        Ok(place.is_some())
    }

    fn backoff(&self, attempt: u32) -> Duration {
        let [a, b, c, d, ..] = self.ids.random();
        Backoff::INFRASTRUCTURE.wait(attempt.min(4), u32::from_be_bytes([a, b, c, d]))
    }
}

fn unavailable() -> Refusal {
    Refusal::new(Code::StoreUnavailable, "The store does not answer; the order was not cancelled, send the request again.")
}

fn internal() -> Refusal {
    Refusal::new(Code::Internal, "This is a fault of ours; the order was not cancelled, send the request again.")
}

fn outcome_unknown() -> Refusal {
    let detail = "The connection to the store was lost during the commit, so the order may be cancelled; send the request again.";
    Refusal::new(Code::OutcomeUnknown, detail)
}

fn deadline_exceeded() -> Refusal {
    Refusal::new(Code::DeadlineExceeded, "The deadline passed, so the order may be cancelled; send the request again.")
}

fn overloaded(wait: Duration) -> Refusal {
    let detail = "More orders wait to be cancelled than can be; nothing was written, send the request again later.";
    Refusal::new(Code::Overloaded, detail).after(wait)
}

fn shutting_down(wait: Duration) -> Refusal {
    Refusal::new(Code::ShuttingDown, "This process shuts down; nothing was written, send the request again.").after(wait)
}
