//! What the stream and the lot of one worker share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use minishop_core::backoff::Backoff;
use minishop_core::ids::Ids;
use tokio::sync::Notify;

use crate::handlers::HandlerPlace;
use crate::upcast::Versions;

/// The longest pause of a task whose store is away. What waits meanwhile goes on waiting for so long once it is back.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Tells how long a task leaves its store alone after so many failures in a row.
pub(crate) fn store_pause(failures: u32, ids: &dyn Ids) -> Duration {
    Backoff::INFRASTRUCTURE.wait(failures, ids.jitter()).clamp(Duration::from_millis(5), LONGEST_PAUSE)
}

/// What the stream and the lot of one worker share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WorkerShared {
    /// Where orders are handled, and by what.
    pub place: HandlerPlace,
    /// The versions that are read.
    pub versions: Arc<Versions>,
    /// Wakes the lot.
    pub bell: LotBell,
}

impl WorkerShared {
    /// Puts a worker's parts together.
    pub fn new(place: HandlerPlace, versions: Versions) -> Self {
        Self { place, versions: Arc::new(versions), bell: LotBell::default() }
    }
}

/// Wakes the lot's task. Rung many times while the task is busy, it wakes it once.
#[derive(Debug, Clone, Default)]
pub struct LotBell {
    wake: Arc<Notify>,
    behind: Arc<AtomicBool>,
}

impl LotBell {
    /// Says that something is due.
    pub fn ring(&self) {
        self.wake.notify_one();
    }

    /// Says that something was set behind an event of its key, which may have left the lot at the same moment.
    pub fn ring_behind(&self) {
        self.behind.store(true, Ordering::SeqCst);
        self.wake.notify_one();
    }

    /// Tells whether something was set behind another event since the last call.
    pub(crate) fn take_behind(&self) -> bool {
        self.behind.swap(false, Ordering::SeqCst)
    }

    /// Waits until somebody rings.
    pub async fn rung(&self) {
        self.wake.notified().await;
    }
}
