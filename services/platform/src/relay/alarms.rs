//! The relay's alarms, as log lines, metrics and health.

use super::messages::Aside;
use super::metrics::RelayMetrics;
use super::shard::Alarm;
use crate::ctx::Status;

/// Raises and clears alarms.
#[derive(Debug)]
pub(super) struct Alarms {
    status: Status,
    metrics: RelayMetrics,
    /// Whether an `outbox_gap` alarm is raised.
    is_damaged: bool,
}

impl Alarms {
    pub fn new(status: Status, metrics: RelayMetrics) -> Self {
        Self { status, metrics, is_damaged: false }
    }

    /// Reports an event that was set aside.
    pub fn set_aside(&self, aside: &Aside) {
        self.metrics.set_aside.inc();
        tracing::error!(
            outbox.shard = aside.token.shard,
            outbox.number = aside.token.number,
            event.id = %aside.event_id,
            reason = aside.reason,
            "an event cannot be published and is set aside; later events are still published"
        );
    }

    /// Raises new alarms; clears the one of gaps if no shard `is_damaged`.
    pub fn raise(&mut self, alarms: impl Iterator<Item = Alarm>, is_damaged: bool) {
        if self.is_damaged && !is_damaged {
            self.is_damaged = false;
            self.status.set("outbox", Ok(()));
        }
        for alarm in alarms {
            match alarm {
                Alarm::WentBack { shard, number, found } => {
                    self.metrics.went_back.inc();
                    tracing::error!(
                        outbox.shard = shard,
                        outbox.number = number,
                        found,
                        "the store went back to an older state; reading the shard again from the acknowledged number"
                    );
                }
                Alarm::Gap { shard, number, next } => self.gap(shard, number, next),
            }
        }
    }

    fn gap(&mut self, shard: i16, number: i64, next: i64) {
        self.metrics.gaps.inc();
        let lacks = if next - number == 1 { format!("number {number}") } else { format!("numbers {number} to {}", next - 1) };
        let reason = format!("outbox_gap: shard {shard} lacks {lacks}");
        tracing::error!(
            outbox.shard = shard,
            outbox.number = number,
            outbox.next = next,
            "{reason}; the shard sends nothing until its rows are restored or given up: minishop outbox step-over"
        );
        self.status.set("outbox", Err(reason));
        self.is_damaged = true;
    }
}
