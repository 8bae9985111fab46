//! The lot's metrics.

use std::collections::HashMap;
use std::time::Duration;

use minishop_core::parking::{ErrorClass, State};
use minishop_platform::ctx::{Labels, Metrics};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::claimed_event::{ClaimedEvent, Ended};

#[derive(Debug, Clone)]
pub(super) struct LotMetrics {
    attempts: Family<Labels<1>, Counter>,
    seconds: Histogram,
    pub retries: Counter,
    pub lost_leases: Counter,
    pub fulfilled_after_cancel: Counter,
    parked: Family<Labels<1>, Gauge>,
    oldest_held: Gauge,
}

impl LotMetrics {
    pub(super) fn register(metrics: &Metrics) -> Self {
        Self {
            attempts: metrics.register("lot_attempts", "Calls to the handler, by outcome"),
            seconds: metrics.histogram("lot_attempt_duration_seconds", "Duration of one handler call", 0.001, 15),
            retries: metrics.register("lot_retries", "Failed attempts that are retried"),
            lost_leases: metrics.register("lot_lost_leases", "Outcomes dropped because their lease was lost"),
            fulfilled_after_cancel: metrics
                .register("lot_fulfilled_after_cancel", "Orders that were handled although they had been cancelled"),
            parked: metrics.register("lot_parked_events", "Events in the lot by state"),
            oldest_held: metrics
                .register("lot_oldest_held_age_seconds", "How long the oldest event has been held for a newer worker"),
        }
    }

    /// Counts an ended call.
    pub(super) fn handled(&self, claimed: &ClaimedEvent) {
        let Some((ended, took)) = &claimed.ended else { return };
        let outcome = match ended {
            Ended::Done => "done",
            Ended::Failed { class: ErrorClass::Panic, .. } => "panicked",
            Ended::Failed { .. } => "failed",
            Ended::Refused { .. } => "refused",
            Ended::Paused { .. } => "paused",
        };
        self.attempts.get_or_create(&[("outcome", outcome)]).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// Sets how many events are parked, and the age of the oldest held one.
    pub(super) fn standing(&self, counts: &HashMap<State, i64>, oldest_held: Option<Duration>) {
        for state in State::ALL {
            let count = counts.get(state).copied().unwrap_or_default();
            self.parked.get_or_create(&[("state", state.as_str())]).set(count);
        }
        self.oldest_held.set(i64::try_from(oldest_held.unwrap_or_default().as_secs()).unwrap_or(i64::MAX));
    }
}
