//! The pipeline's status, sent to all subscribers. One task reads it for all of them, and only while there are any.

mod status;

use std::sync::Arc;
use std::time::Duration;

use minishop_contracts::ops::v1::WatchStatusResponse;
use minishop_core::clock::Clock;
use minishop_core::ids::Ids;
use minishop_core::refusal::Refusal;
use minishop_platform::ctx::Ctx;
use minishop_store::{OperationQuery, Store};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::messages::operation;
use crate::refusals;
pub use status::read_status;

/// How often the status is read.
const EVERY: Duration = Duration::from_secs(1);
/// Maximum number of operations in a status, newest first.
const OPERATIONS: i64 = 20;
/// Maximum number of subscribers in a process.
const MOST_SUBSCRIBERS: usize = 256;

type Latest = Option<Arc<WatchStatusResponse>>;

/// The feed that callers subscribe to. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StatusFeed {
    latest: watch::Sender<Latest>,
    subscribed: Arc<Notify>,
    drain: CancellationToken,
    ids: Arc<dyn Ids>,
}

/// A subscription to the feed.
#[derive(Debug)]
pub struct StatusSubscriber {
    latest: watch::Receiver<Latest>,
    drain: CancellationToken,
    again: Duration,
    over: bool,
}

impl StatusFeed {
    /// Subscribes to the feed. Refuses during a drain and beyond `MOST_SUBSCRIBERS`.
    pub fn subscribe(&self) -> Result<StatusSubscriber, Refusal> {
        let again = refusals::retry_after(self.ids.as_ref());
        if self.drain.is_cancelled() {
            return Err(refusals::watch_ended(again));
        }
        let others = self.latest.receiver_count();
        if others >= MOST_SUBSCRIBERS {
            return Err(refusals::too_many_subscribers(again));
        }
        if others == 0 {
            // The last subscriber may have left long ago, so the latest status may be out of date.
            self.latest.send_replace(None);
        }
        let mut latest = self.latest.subscribe();
        latest.mark_changed();
        self.subscribed.notify_one();
        Ok(StatusSubscriber { latest, drain: self.drain.clone(), again, over: false })
    }

    /// Waits until there is a subscriber.
    async fn has_subscribers(&self) {
        while self.latest.receiver_count() == 0 {
            self.subscribed.notified().await;
        }
    }
}

impl StatusSubscriber {
    /// Waits for the next status. A drain yields a refusal, then `None`.
    pub async fn next(&mut self) -> Option<Result<WatchStatusResponse, Refusal>> {
        if self.over {
            return None;
        }
        loop {
            tokio::select! {
                changed = self.latest.changed() => if changed.is_ok() {
                    let now = self.latest.borrow_and_update().clone();
                    if let Some(now) = now {
                        return Some(Ok(WatchStatusResponse::clone(&now)));
                    }
                },
                () = self.drain.cancelled() => {
                    self.over = true;
                    return Some(Err(refusals::watch_ended(self.again)));
                }
            }
        }
    }
}

/// Reads the status for all subscribers.
#[derive(Debug)]
pub struct StatusFeedTask {
    feed: StatusFeed,
    store: Store,
    clock: Arc<dyn Clock>,
}

impl StatusFeedTask {
    /// Creates the feed and its task.
    pub fn new(ctx: &Ctx) -> (StatusFeed, Self) {
        let (subscribed, ids) = (Arc::default(), Arc::clone(&ctx.ids));
        let feed = StatusFeed { latest: watch::Sender::new(None), subscribed, drain: ctx.drain.clone(), ids };
        (feed.clone(), Self { feed, store: ctx.store.clone(), clock: Arc::clone(&ctx.clock) })
    }

    /// Reads until the process drains.
    pub async fn run(self) -> anyhow::Result<()> {
        let mut failing = false;
        let reading = async {
            loop {
                self.feed.has_subscribers().await;
                match self.read().await {
                    Ok(now) => {
                        failing = false;
                        self.send(now);
                    }
                    Err(error) if !std::mem::replace(&mut failing, true) => {
                        warn!(error = ?error, "cannot read the pipeline's status; subscribers wait");
                    }
                    Err(_) => {}
                }
                tokio::time::sleep(EVERY).await;
            }
        };
        tokio::select! {
            () = reading => Ok(()),
            () = self.feed.drain.cancelled() => Ok(()),
        }
    }

    async fn read(&self) -> minishop_store::Result<WatchStatusResponse> {
        let status = read_status(&self.store, self.clock.as_ref()).await?;
        let newest = OperationQuery { limit: OPERATIONS, ..OperationQuery::default() };
        let operations = self.store.operations.operations(&newest).await?;
        Ok(WatchStatusResponse { status: Some(status), operations: operations.into_iter().map(operation).collect() })
    }

    fn send(&self, now: WatchStatusResponse) {
        self.feed.latest.send_if_modified(|sent| {
            let is_new = sent.as_deref() != Some(&now);
            if is_new {
                *sent = Some(Arc::new(now));
            }
            is_new
        });
    }
}
