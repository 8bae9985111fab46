//! Reads `orders.processed` beside the load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use minishop_bus::consume::Tail;
use serde::Deserialize;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::track::{Track, Verdict};

/// How long after the last order copies and further events are read.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// A thread that reads until it is dropped.
#[derive(Debug)]
pub struct Reader {
    thread: JoinHandle<anyhow::Result<()>>,
    stop: Arc<AtomicBool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    event_id: Uuid,
    data: Data,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    order_id: Uuid,
}

impl Reader {
    /// Starts to read.
    pub fn start(tail: Tail, track: &Arc<Track>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (track, stopped) = (track.clone(), stop.clone());
        let thread = tokio::task::spawn_blocking(move || {
            while !stopped.load(Ordering::Relaxed) {
                let Some(record) = tail.next(Duration::from_millis(50))? else { continue };
                let now = Instant::now();
                // Events of other programs may have ids of other forms.
                if let Ok(event) = serde_json::from_slice::<Envelope>(record.value.as_deref().unwrap_or_default()) {
                    track.processed(event.data.order_id, event.event_id, now);
                }
            }
            Ok(())
        });
        Self { thread, stop }
    }

    /// Reads a little longer, ends, and judges the orders.
    pub async fn verdict(mut self, track: &Track) -> anyhow::Result<Verdict> {
        tokio::time::sleep(AFTERWARDS).await;
        self.stop.store(true, Ordering::Relaxed);
        (&mut self.thread).await??;
        Ok(track.verdict())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
