//! Pings the store every second and reports in the process's health whether it accepts writes.

use std::sync::Arc;
use std::time::Duration;

use minishop_store::Orders;
use tokio_util::sync::CancellationToken;

use crate::ctx::Status;

const EVERY: Duration = Duration::from_secs(1);

/// Consecutive failures before the store counts as away: a single ping may only have queued for too long.
const FAILURES: u32 = 2;

/// Returns whether the embedded event log accepts writes.
pub type Writable = Box<dyn Fn() -> bool + Send + Sync>;

/// Updates the store's health until the drain, and notes an event log that refuses writes.
///
/// The log is only noted: without it, orders are accepted and their events wait, as while Kafka is away.
pub(super) async fn watch(
    orders: Arc<dyn Orders>,
    log: Option<Writable>,
    status: Status,
    drain: CancellationToken,
) -> anyhow::Result<()> {
    let mut failures = 0_u32;
    loop {
        let probe = async {
            tokio::time::sleep(EVERY).await;
            orders.ping().await
        };
        let answer = tokio::select! { answer = probe => answer, () = drain.cancelled() => return Ok(()) };
        if let Some(writable) = &log {
            status.note("event_log", (!writable()).then(|| "the disk refuses writes; events wait in the outbox".to_owned()));
        }
        match answer {
            Ok(()) => {
                if failures >= FAILURES {
                    tracing::info!("the store accepts writes again");
                }
                failures = 0;
                status.set("store", Ok(()));
            }
            // The state of the disk is unknown: boot ends the process.
            Err(error) if error.is_sync_failure() => return Err(error.into()),
            Err(error) => {
                failures = failures.saturating_add(1);
                let reason = format!("{:#}", anyhow::Error::from(error));
                if failures == FAILURES {
                    tracing::warn!("the store does not accept writes: {reason}");
                }
                if failures >= FAILURES {
                    status.set("store", Err(reason));
                }
            }
        }
    }
}
