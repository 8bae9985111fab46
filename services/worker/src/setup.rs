//! What the stream and the lot of one worker share.

use std::sync::Arc;

use tokio::sync::{Mutex, Notify};

use crate::handlers::Place;
use crate::upcast::Versions;

/// What the stream and the lot of one worker share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Where orders are handled, and by what.
    pub place: Place,
    /// The versions that are read.
    pub versions: Arc<Versions>,
    /// Wakes the lot.
    pub bell: Bell,
    /// Held by the lot from before a transaction until its outbox rows are handed over, and by the stream when it hands over.
    ///
    /// The stream may see a key free that the lot has just let go: its event must not reach the relay before the lot's does,
    /// and both may be committed in one group.
    pub turn: Arc<Mutex<()>>,
}

impl Setup {
    /// Puts a worker's parts together.
    pub fn new(place: Place, versions: Versions) -> Self {
        Self { place, versions: Arc::new(versions), bell: Bell::default(), turn: Arc::default() }
    }
}

/// Wakes the lot's task: something is due at once. Rung many times while the task is busy, it wakes it once.
#[derive(Debug, Clone, Default)]
pub struct Bell(Arc<Notify>);

impl Bell {
    /// Says that something is due.
    pub fn ring(&self) {
        self.0.notify_one();
    }

    /// Waits until somebody rings.
    pub async fn rung(&self) {
        self.0.notified().await;
    }
}
