//! Deletes what nothing needs any more: old inbox rows, ended operations and old audit entries, in small batches beside the hot
//! path.
//!
//! The inbox distinguishes copies from new events. It must remember an event for longer than the log can deliver it again, so no
//! inbox row is deleted unless the topic's retention is shorter than the inbox's.

use std::sync::Arc;
use std::time::Duration;

use minishop_bus::topics::settings;
use minishop_contracts::topics;
use minishop_platform::ctx::{Ctx, Task};
use minishop_store::{Housekeeping, Operations, StoreError};
use prometheus_client::metrics::counter::Counter;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

/// The interval of rounds.
const ROUND: Duration = Duration::from_mins(1);
/// Rows per delete, and the pause after it: other work must hardly notice.
const BITE: i64 = 5_000;
const PAUSE: Duration = Duration::from_millis(200);
/// How long the brokers may take to return a topic's retention.
const PATIENCE: Duration = Duration::from_secs(10);

/// A kind of old rows.
#[derive(Debug, Clone, Copy)]
pub enum Old {
    /// Inbox rows.
    Settled,
    /// Ended operations, and audit entries.
    Operations,
}

/// Keeps the tables small.
#[derive(Debug)]
pub struct Housekeeper {
    store: Arc<dyn Housekeeping>,
    consumer: String,
    inbox_retention: Duration,
    forgotten: Counter,
    operations: Operations,
    audit_retention: Duration,
    operations_forgotten: Counter,
}

/// Builds the task; each round checks the topic's retention before it deletes inbox rows.
pub fn task(ctx: &Ctx) -> Task {
    Task::new("worker.housekeeping", keep(ctx.clone(), Housekeeper::new(ctx)))
}

impl Housekeeper {
    /// Creates the housekeeper, and registers its counters.
    pub fn new(ctx: &Ctx) -> Self {
        Self {
            store: ctx.store.housekeeping.clone(),
            consumer: ctx.config.kafka_group.clone(),
            inbox_retention: ctx.config.inbox_retention,
            forgotten: ctx
                .metrics
                .register("worker_inbox_rows_deleted", "Inbox rows deleted because they were older than their retention"),
            operations: ctx.store.operations.clone(),
            audit_retention: ctx.config.audit_retention,
            operations_forgotten: ctx.metrics.register(
                "worker_operations_deleted",
                "Operation and audit rows deleted because they were older than their retention",
            ),
        }
    }

    /// Deletes one batch; returns whether more is left.
    pub async fn step(&self, old: Old) -> Result<bool, StoreError> {
        let (gone, counter) = match old {
            Old::Settled => (self.store.forget_settled(&self.consumer, self.inbox_retention, BITE).await?, &self.forgotten),
            Old::Operations => (self.operations.forget(self.audit_retention, BITE).await?, &self.operations_forgotten),
        };
        counter.inc_by(gone);
        Ok(i64::try_from(gone).is_ok_and(|gone| gone >= BITE))
    }
}

/// Returns why inbox rows must not be deleted, given the topic's retention (`None`: unlimited).
fn objection(topic: Option<Duration>, inbox: Duration) -> Option<String> {
    let short = topic.is_none_or(|kept| kept >= inbox);
    short.then(|| {
        let kept = topic.map_or_else(|| "forever".to_owned(), |kept| format!("for {kept:?}"));
        format!(
            "no inbox rows are deleted: the topic keeps records {kept}, the inbox keeps event ids for {inbox:?}; \
            set MINISHOP_INBOX_RETENTION above the topic's retention.ms"
        )
    })
}

async fn keep(ctx: Ctx, housekeeper: Housekeeper) -> anyhow::Result<()> {
    let topic = topics::prefixed(&ctx.config.topic_prefix, topics::CREATED);
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut noted = None;
    loop {
        tokio::select! {
            () = ctx.drain.cancelled() => return Ok(()),
            _ = rounds.tick() => {}
        }
        round(&ctx, &housekeeper, Old::Operations).await;
        // Read in each round: it can change while we run. While the brokers are unavailable no inbox row is deleted.
        let Ok(settings) = settings(&ctx.brokers, &[&topic], PATIENCE).await else { continue };
        let kept = settings[0].retention;
        let objection = objection(kept, housekeeper.inbox_retention);
        if objection != noted {
            if let Some(text) = &objection {
                tracing::warn!(topic, "{text}");
            }
            ctx.status.note("inbox_retention", objection.clone());
            noted.clone_from(&objection);
        }
        if objection.is_none() {
            round(&ctx, &housekeeper, Old::Settled).await;
        }
    }
}

/// Deletes batches until nothing is left, or the drain begins.
async fn round(ctx: &Ctx, housekeeper: &Housekeeper, old: Old) {
    loop {
        match housekeeper.step(old).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return tracing::warn!(error = ?error, "cannot delete old rows; retrying in a minute"),
        }
        if timeout_at(Instant::now() + PAUSE, ctx.drain.cancelled()).await.is_ok() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_forgotten_that_the_topic_may_still_deliver() {
        let hours = Duration::from_hours;
        assert_eq!(objection(Some(hours(7)), hours(8)), None);
        for kept in [Some(hours(8)), Some(hours(9)), None] {
            assert!(objection(kept, hours(8)).is_some_and(|text| text.contains("MINISHOP_INBOX_RETENTION")), "{kept:?}");
        }
    }
}
