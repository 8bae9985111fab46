//! The pipeline's standing, told to all who look on. One task reads for everybody, and nothing while nobody looks.

use std::sync::Arc;
use std::time::Duration;

use minishop_contracts::ops::v1::WatchStatusResponse;
use minishop_core::clock::Clock;
use minishop_core::ids::Ids;
use minishop_core::refusal::{Code, Refusal};
use minishop_platform::ctx::Ctx;
use minishop_platform::store::{self, OperationQuery, Store};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::operations::operation;
use crate::intake::retry_after;
use crate::watch::shutting_down;

/// How often the standing is read.
const EVERY: Duration = Duration::from_secs(1);
/// How many operations are told.
const OPERATIONS: i64 = 20;
/// How many may look on at once in a process; operators are no crowd.
const MOST: usize = 256;

type News = Option<Arc<WatchStatusResponse>>;

/// Where callers look on. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Live {
    news: watch::Sender<News>,
    came: Arc<Notify>,
    drain: CancellationToken,
    ids: Arc<dyn Ids>,
}

/// One caller that looks on.
#[derive(Debug)]
pub struct Onlooker {
    news: watch::Receiver<News>,
    drain: CancellationToken,
    /// When to come back after a drain.
    again: Duration,
    over: bool,
}

impl Live {
    /// Begins to look on.
    pub fn look_on(&self) -> Result<Onlooker, Refusal> {
        let again = retry_after(self.ids.as_ref());
        if self.drain.is_cancelled() {
            return Err(shutting_down(again));
        }
        let others = self.news.receiver_count();
        if others >= MOST {
            let detail = "As many look on here as may; come again later, or ask for the status now and then.";
            return Err(Refusal::new(Code::Overloaded, detail).after(again));
        }
        if others == 0 {
            // What the last one was told may be old.
            self.news.send_replace(None);
        }
        let mut news = self.news.subscribe();
        news.mark_changed();
        self.came.notify_one();
        Ok(Onlooker { news, drain: self.drain.clone(), again, over: false })
    }

    /// Waits until somebody looks on.
    async fn watched(&self) {
        while self.news.receiver_count() == 0 {
            self.came.notified().await;
        }
    }
}

impl Onlooker {
    /// Waits for the next standing; `None` after the refusal that the drain brings.
    pub async fn next(&mut self) -> Option<Result<WatchStatusResponse, Refusal>> {
        if self.over {
            return None;
        }
        loop {
            tokio::select! {
                changed = self.news.changed() => if changed.is_ok() {
                    let now = self.news.borrow_and_update().clone();
                    if let Some(now) = now {
                        return Some(Ok(WatchStatusResponse::clone(&now)));
                    }
                },
                () = self.drain.cancelled() => {
                    self.over = true;
                    return Some(Err(shutting_down(self.again)));
                }
            }
        }
    }
}

/// Reads for all who look on.
#[derive(Debug)]
pub struct LiveTask {
    live: Live,
    store: Store,
    clock: Arc<dyn Clock>,
}

impl LiveTask {
    /// Makes the task and where to look on.
    pub fn new(ctx: &Ctx) -> (Live, Self) {
        let (came, ids) = (Arc::default(), Arc::clone(&ctx.ids));
        let live = Live { news: watch::Sender::new(None), came, drain: ctx.drain.clone(), ids };
        (live.clone(), Self { live, store: ctx.store.clone(), clock: Arc::clone(&ctx.clock) })
    }

    /// Reads until the process drains.
    pub async fn run(self) -> anyhow::Result<()> {
        let mut failing = false;
        let reading = async {
            loop {
                self.live.watched().await;
                match self.read().await {
                    Ok(now) => {
                        failing = false;
                        self.tell(now);
                    }
                    Err(error) if !std::mem::replace(&mut failing, true) => {
                        warn!(error = ?error, "the pipeline's standing cannot be read; who looks on waits");
                    }
                    Err(_) => {}
                }
                tokio::time::sleep(EVERY).await;
            }
        };
        tokio::select! {
            () = reading => Ok(()),
            () = self.live.drain.cancelled() => Ok(()),
        }
    }

    async fn read(&self) -> store::Result<WatchStatusResponse> {
        let status = super::standing(&self.store, self.clock.as_ref()).await?;
        let newest = OperationQuery { limit: OPERATIONS, ..OperationQuery::default() };
        let operations = self.store.operations.operations(&newest).await?;
        Ok(WatchStatusResponse { status: Some(status), operations: operations.into_iter().map(operation).collect() })
    }

    fn tell(&self, now: WatchStatusResponse) {
        self.live.news.send_if_modified(|told| {
            let news = told.as_deref() != Some(&now);
            if news {
                *told = Some(Arc::new(now));
            }
            news
        });
    }
}
