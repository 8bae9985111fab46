//! State shared by the stream and the lot of one worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use crate::event::upcast::Versions;
use crate::handlers::HandlerPlace;

/// State shared by the stream and the lot of one worker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WorkerShared {
    /// Where orders are handled, and by which handler.
    pub place: HandlerPlace,
    /// The event versions that this worker reads.
    pub versions: Arc<Versions>,
    /// Wakes the lot.
    pub bell: LotBell,
}

impl WorkerShared {
    /// Combines a worker's parts.
    pub fn new(place: HandlerPlace, versions: Versions) -> Self {
        Self { place, versions: Arc::new(versions), bell: LotBell::default() }
    }
}

/// Wakes the lot's task. Several rings while the task is busy wake it once.
#[derive(Debug, Clone, Default)]
pub struct LotBell {
    wake: Arc<Notify>,
    behind: Arc<AtomicBool>,
}

impl LotBell {
    /// Announces that a row is due.
    pub fn ring(&self) {
        self.wake.notify_one();
    }

    /// Announces an event that was parked behind another one of its key, which may have left the lot at the same moment.
    pub fn ring_behind(&self) {
        self.behind.store(true, Ordering::SeqCst);
        self.wake.notify_one();
    }

    /// Returns whether [`Self::ring_behind`] was called since the last call.
    pub(crate) fn take_behind(&self) -> bool {
        self.behind.swap(false, Ordering::SeqCst)
    }

    /// Waits for a ring.
    pub async fn rung(&self) {
        self.wake.notified().await;
    }
}
