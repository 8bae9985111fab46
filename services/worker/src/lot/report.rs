//! Logs and metrics of the lot's events, after the commit.

use std::time::Duration;

use minishop_core::parking::{DeadCode, ErrorClass};
use minishop_store::StoreError;
use tokio::time::Instant;

use super::claimed_event::{ClaimedEvent, Ended};
use super::decision::{Decision, LotOutcome};
use super::lot_store::LotStore;
use crate::event::decode::CreatedEvent;

/// An event held for this long waits for a worker that nobody rolls out.
const HELD_TOO_LONG: Duration = Duration::from_mins(15);

impl LotStore {
    /// Counts and logs the decision on an event.
    pub(super) fn report(&self, claimed: &ClaimedEvent, decision: &Decision, lost: bool) {
        if lost && claimed.in_doubt {
            tracing::info!(parked.id = claimed.row.lease.id, event.id = %claimed.event_id, "an outcome in doubt was already written");
            return;
        }
        if lost {
            self.metrics.lost_leases.inc();
            let (id, event_id) = (claimed.row.lease.id, claimed.event_id);
            tracing::warn!(parked.id = id, event.id = %event_id, "an outcome arrived after its lease was lost; dropping it");
            return;
        }
        let outcome = match decision.outcome {
            LotOutcome::Called | LotOutcome::HandedBack => return,
            LotOutcome::Retried { again_in } => return self.report_retried(claimed, again_in),
            LotOutcome::Dead(class, code) => {
                self.counted.dead_letter(class, code);
                dead(claimed, class, code);
                "dead"
            }
            LotOutcome::Processed => {
                self.report_processed(claimed);
                "processed"
            }
            LotOutcome::Late => {
                self.metrics.fulfilled_after_cancel.inc();
                tracing::warn!(
                    order.id = claimed.created().map(order_id),
                    event.id = %claimed.event_id,
                    correlation_id = claimed.created().map(|event| event.head.correlation_id.as_str()),
                    "an order was handled although it had been cancelled"
                );
                "ignored"
            }
            LotOutcome::Ignored => "ignored",
            LotOutcome::Duplicate => "duplicate",
            LotOutcome::Copy => "copy",
        };
        self.counted.event(outcome);
    }

    fn report_processed(&self, claimed: &ClaimedEvent) {
        let Some(event) = claimed.created() else { return };
        let waited = self.clock.now().signed_duration_since(event.head.created_at).to_std().unwrap_or_default();
        self.counted.latency.observe(waited.as_secs_f64());
        tracing::debug!(
            order.id = %event.head.order_id,
            correlation_id = event.head.correlation_id.as_str(),
            attempt = claimed.row.attempts,
            "processed order {} from the lot",
            event.head.order_id
        );
    }

    fn report_retried(&self, claimed: &ClaimedEvent, again_in: Duration) {
        self.metrics.retries.inc();
        let Some((Ended::Failed { class, message, .. }, _)) = &claimed.ended else { return };
        tracing::info!(
            order.id = claimed.created().map(order_id),
            event.id = %claimed.event_id,
            correlation_id = claimed.created().map(|event| event.head.correlation_id.as_str()),
            attempt = claimed.row.attempts,
            error.class = class.as_str(),
            again_in_ms = u64::try_from(again_in.as_millis()).unwrap_or(u64::MAX),
            "an attempt failed: {message}"
        );
    }

    /// Counts the lot, and raises an alarm when an event has been held for too long: in the log at most once per `HELD_TOO_LONG`,
    /// in `/readyz?verbose` for as long as it lasts.
    pub(super) async fn count(&self, alarm_at: &mut Instant) -> Result<(), StoreError> {
        let counts = self.reads.parked_counts().await?;
        let held = self.lot.oldest_held(&self.config.kafka_group, &self.types).await?;
        self.metrics.standing(&counts, held);
        let too_long = held.filter(|held| *held >= HELD_TOO_LONG);
        self.status.note(
            "held_events",
            too_long.map(|held| format!("one event has waited for a newer worker for {} min", held.as_secs() / 60)),
        );
        if let Some(held) = too_long.filter(|_| Instant::now() >= *alarm_at) {
            *alarm_at = Instant::now() + HELD_TOO_LONG;
            tracing::error!(
                held_seconds = held.as_secs(),
                "an event has waited too long for a newer worker: roll one out, or inspect the held events; its key waits"
            );
        }
        Ok(())
    }
}

fn order_id(event: &CreatedEvent) -> tracing::field::DisplayValue<minishop_core::ids::OrderId> {
    tracing::field::display(event.head.order_id)
}

fn dead(claimed: &ClaimedEvent, class: ErrorClass, code: DeadCode) {
    tracing::warn!(
        order.id = claimed.created().map(order_id),
        event.id = %claimed.event_id,
        parked.id = claimed.row.lease.id,
        correlation_id = claimed.created().map(|event| event.head.correlation_id.as_str()),
        topic = claimed.row.topic,
        partition = claimed.row.partition,
        offset = claimed.row.offset,
        attempt = claimed.row.attempts,
        error.class = class.as_str(),
        error.code = code.as_str(),
        "an event is given up; it becomes a dead letter"
    );
}
