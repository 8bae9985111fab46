//! What a failure of the store means to the worker's tasks: one policy for the stream, the lot and operations.

use std::time::Duration;

use minishop_core::backoff::Backoff;
use minishop_platform::ctx::Ctx;
use minishop_store::StoreError;

/// The longest pause, and so the longest delay once the store is back.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Counts the failures in a row of one task. Its steps are retried without limit: nothing is lost, and no event is to blame.
pub(crate) struct StoreRetry {
    ctx: Ctx,
    /// The task's name in the log.
    task: &'static str,
    failures: u32,
}

impl StoreRetry {
    pub fn new(ctx: &Ctx, task: &'static str) -> Self {
        Self { ctx: ctx.clone(), task, failures: 0 }
    }

    pub const fn failures(&self) -> u32 {
        self.failures
    }

    pub const fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Logs a failure and waits before the retry; the drain ends the wait. Fails if the disk did not sync: then what was committed
    /// is in doubt, and the process must end.
    pub async fn failed(&mut self, error: StoreError) -> anyhow::Result<()> {
        if error.is_sync_failure() {
            return Err(anyhow::Error::new(error).context("the disk failed to sync the worker's writes"));
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures.is_power_of_two() {
            let (task, failures) = (self.task, self.failures);
            if matches!(error, StoreError::Fail { .. }) {
                tracing::error!(
                    task,
                    failure.count = failures,
                    error = ?error,
                    "the store refuses a write; retrying until an operator fixes the store, nothing is lost"
                );
            } else {
                tracing::warn!(task, failure.count = failures, error = ?error, "the worker cannot reach the store; retrying, nothing is lost");
            }
        }
        let pause = Backoff::INFRASTRUCTURE.wait(self.failures, self.ctx.ids.jitter());
        let pause = pause.clamp(Duration::from_millis(5), LONGEST_PAUSE);
        let _ = tokio::time::timeout(pause, self.ctx.drain.cancelled()).await;
        Ok(())
    }
}
