//! Asks the store once a second whether it takes writes, and says in the process's health what it answers.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::ctx::Status;
use crate::store::Orders;

/// Time between two questions.
const EVERY: Duration = Duration::from_secs(1);

/// Answers in a row that a store must fail to be called away: one alone may have waited too long behind others.
const FAILURES: u32 = 2;

/// Says whether the embedded event log takes writes.
pub type Writable = Box<dyn Fn() -> bool + Send + Sync>;

/// Keeps the health of the store, and notes an event log that refuses writes, until the drain.
///
/// The log is only noted: orders are accepted without it and their events wait, as while Kafka is away.
pub(super) async fn watch(
    orders: Arc<dyn Orders>,
    log: Option<Writable>,
    status: Status,
    drain: CancellationToken,
) -> anyhow::Result<()> {
    let mut failures = 0_u32;
    loop {
        let turn = async {
            tokio::time::sleep(EVERY).await;
            orders.ping().await
        };
        let answer = tokio::select! { answer = turn => answer, () = drain.cancelled() => return Ok(()) };
        if let Some(writable) = &log {
            status.note("event log", (!writable()).then(|| "the disk refuses writes; events wait".to_owned()));
        }
        match answer {
            Ok(()) => {
                if failures >= FAILURES {
                    tracing::info!("the store takes writes again");
                }
                failures = 0;
                status.set("store", Ok(()));
            }
            // What the disk holds is unknown: boot ends the process.
            Err(error) if error.is_sync_failure() => return Err(error.into()),
            Err(error) => {
                failures = failures.saturating_add(1);
                let reason = format!("{:#}", anyhow::Error::from(error));
                if failures == FAILURES {
                    tracing::warn!("the store takes no writes: {reason}");
                }
                if failures >= FAILURES {
                    status.set("store", Err(reason));
                }
            }
        }
    }
}
