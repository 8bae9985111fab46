//! A line that shows how far a run is, at a terminal.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::time::{Duration, Instant};

use super::track::Track;

/// Awaits `work`, and meanwhile shows the counts once a second if standard error is a terminal. `accepted` counts accepted orders.
pub async fn during<T>(what: &str, track: &Track, accepted: impl Fn() -> u64, work: impl Future<Output = T>) -> T {
    if !stderr().is_terminal() {
        return work.await;
    }
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut work = std::pin::pin!(work);
    let (mut accepted_before, mut processed_before) = (0, track.progress().processed);
    loop {
        tokio::select! {
            done = &mut work => {
                let _ = write!(stderr(), "\r\x1b[K");
                return done;
            }
            _ = ticks.tick() => {
                let (accepted, processed) = (accepted(), track.progress().processed);
                let _ = write!(
                    stderr(),
                    "\r\x1b[K{what} {} s: accepted {accepted} ({}/s), processed {processed} ({}/s)",
                    begun.elapsed().as_secs(),
                    accepted - accepted_before,
                    processed - processed_before,
                );
                (accepted_before, processed_before) = (accepted, processed);
            }
        }
    }
}
