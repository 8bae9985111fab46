//! The common batch: every event is new, and each order is exactly as its event describes it. One statement settles it, and
//! checks that it is such a batch. Any other batch takes the steps in `batch`.

use minishop_store::{AnnouncedBatch, AnnouncedEvent, OutboxRow, StoreError};
use tokio::time::Instant;

use super::batch::{Attempt, Processor, Seen};
use super::plan::{Plan, Refusals, Spans};
use super::rows;
use crate::event::decode::{CreatedEvent, Incoming};

impl Processor {
    /// Settles a batch whose events find everything as announced; any other must take the steps.
    pub(super) async fn settle_announced(&self, batch: &[Incoming<'_>], seen: &Seen) -> Result<Attempt, StoreError> {
        let not_tried = Attempt::Again(Refusals::new(), Spans::new());
        let created: Option<Vec<&CreatedEvent>> = batch.iter().map(Incoming::created).collect();
        let Some(created) = created.filter(|_| !self.hands_to_the_lot()) else { return Ok(not_tried) };
        if !self.inbox.settles_announced() || !self.misses.allow() {
            return Ok(not_tried);
        }
        let started = Instant::now();
        let mut plan = Plan::new(self.clock.now(), rows::positions(batch), Spans::new());
        for (incoming, event) in batch.iter().zip(&created) {
            plan.take_as_announced(incoming, event, &self.events, self.ids.as_ref());
        }
        let events = batch.iter().zip(created).zip(&plan.transitions).map(|((incoming, event), transition)| AnnouncedEvent {
            data_sha: &incoming.digest.0,
            record_key: &incoming.key,
            client_id: &event.head.client_id,
            fingerprint: &event.fingerprint,
            transition,
        });
        let announced = AnnouncedBatch { events: events.collect(), positions: &plan.journal.positions, seen: &seen.0 };
        let settled = self.inbox.settle_announced(&self.config.kafka_group, &announced).await;
        let numbers = settled.inspect_err(|error| self.commits.doubt(error))?;
        self.misses.note(numbers.is_none());
        let Some(numbers) = numbers else { return Ok(Attempt::Again(Refusals::new(), plan.into_spans())) };
        let transitions = std::mem::take(&mut plan.transitions);
        let rows = numbers.into_iter().zip(transitions).map(|(number, transition)| OutboxRow::new(number, transition.event));
        self.committed(&plan, rows.collect(), started);
        Ok(Attempt::Settled(plan.journal.positions))
    }
}
