//! State shared by the stream and the lot of one worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::event::upcast::Versions;
use crate::handlers::HandlerPlace;

/// The `standstill` of every worker but those of tests.
const STANDSTILL: Duration = Duration::from_secs(15);

/// State shared by the stream and the lot of one worker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WorkerShared {
    /// Where orders are handled, and by which handler.
    pub place: HandlerPlace,
    /// The event versions that this worker reads.
    pub versions: Arc<Versions>,
    /// Wakes the lot.
    pub lot_waker: LotWaker,
    /// How long a partition may make no progress, although its leader answers and has more, before it counts as unreadable.
    pub standstill: Duration,
}

impl WorkerShared {
    /// Combines a worker's parts.
    pub fn new(place: HandlerPlace, versions: Versions) -> Self {
        Self { place, versions: Arc::new(versions), lot_waker: LotWaker::default(), standstill: STANDSTILL }
    }
}

/// Wakes the lot's task. Several calls of `wake` while the task is busy count as one.
#[derive(Debug, Clone, Default)]
pub struct LotWaker {
    notify: Arc<Notify>,
    behind: Arc<AtomicBool>,
}

impl LotWaker {
    /// Announces that a row is due.
    pub fn wake(&self) {
        self.notify.notify_one();
    }

    /// Announces an event that was parked behind another one of its key, which may have left the lot at the same moment.
    pub fn wake_behind(&self) {
        self.behind.store(true, Ordering::SeqCst);
        self.notify.notify_one();
    }

    /// Returns whether [`Self::wake_behind`] was called since the last call.
    pub(crate) fn take_behind(&self) -> bool {
        self.behind.swap(false, Ordering::SeqCst)
    }

    /// Waits for [`Self::wake`].
    pub async fn woken(&self) {
        self.notify.notified().await;
    }
}
