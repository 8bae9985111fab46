//! One transaction over claimed events: the decision on each, written under its lease.

use std::collections::HashSet;

use minishop_core::crash;
use minishop_platform::telemetry::propagation::TraceContext;
use minishop_store::{Gate, InboxEntry, Journal, Lease, LotTx, OutboxRow, Release, StoreError, Transition};

use super::claimed_event::ClaimedEvent;
use super::decide::Facts;
use super::decision::{Decision, LotOutcome, Row};
use super::lot_store::LotStore;
use crate::commit::{change_orders, changed, commit};
use crate::event::decode::{Content, Refused};
use crate::event::known::Known;
use crate::handlers::HandlerPlace;

/// How a transaction ended.
enum Attempt {
    /// Committed.
    Written(Vec<Decision>),
    /// Rolled back: other workers have these rows now. Leave them out of the next attempt, or the gate records their events as
    /// settled.
    Lost(HashSet<i64>),
}

/// The result of a committed transaction.
struct Written {
    rows: Vec<OutboxRow>,
    /// The rows whose lease was lost: nothing of them was written.
    lost: HashSet<i64>,
}

impl LotStore {
    /// Decides on events and writes the decisions; returns the events to call the handler for. An error returns those to decide
    /// again.
    ///
    /// A batch that the store refuses is split into single events, and an event whose own values are to blame is given up.
    pub(super) async fn decide_and_write(
        &self,
        mut events: Vec<ClaimedEvent>,
    ) -> Result<Vec<ClaimedEvent>, (Vec<ClaimedEvent>, StoreError)> {
        match self.attempt(&events).await {
            Ok(Attempt::Written(decisions)) => Ok(self.calls_of(events, &decisions)),
            Ok(Attempt::Lost(ids)) => {
                events.retain(|claimed| !ids.contains(&claimed.row.lease.id));
                Box::pin(self.decide_and_write(events)).await
            }
            Err(error @ StoreError::Fail { .. }) if events.len() > 1 && !error.is_sync_failure() => {
                tracing::warn!(event.count = events.len(), error = ?error, "the store refuses a batch of parked events; splitting it");
                self.one_by_one(events).await
            }
            Err(error) if events.len() == 1 && error.blames_the_input() => {
                tracing::error!(error = ?error, "the store refuses a parked event; it becomes a dead letter");
                let refused = |claimed| ClaimedEvent { content: Content::Refused(Refused::by_the_store()), ..claimed };
                let condemned: Vec<ClaimedEvent> = events.into_iter().map(refused).collect();
                match self.attempt(&condemned).await {
                    Ok(_) => Ok(Vec::new()),
                    Err(error) => Err((doubted(condemned, &error), error)),
                }
            }
            Err(error) => Err((doubted(events, &error), error)),
        }
    }

    async fn one_by_one(&self, events: Vec<ClaimedEvent>) -> Result<Vec<ClaimedEvent>, (Vec<ClaimedEvent>, StoreError)> {
        let (mut calls, mut rest) = (Vec::new(), events.into_iter());
        while let Some(claimed) = rest.next() {
            match Box::pin(self.decide_and_write(vec![claimed])).await {
                Ok(more) => calls.extend(more),
                Err((back, error)) => {
                    // The calls found so far have not started; they are decided again.
                    return Err((calls.into_iter().chain(back).chain(rest).collect(), error));
                }
            }
        }
        Ok(calls)
    }

    fn calls_of(&self, events: Vec<ClaimedEvent>, decisions: &[Decision]) -> Vec<ClaimedEvent> {
        let called = events.into_iter().zip(decisions).filter(|(_, decision)| decision.outcome == LotOutcome::Called);
        called
            .map(|(mut claimed, _)| {
                let of_event = claimed.created().and_then(|event| event.trace.clone());
                claimed.trace = Some(of_event.unwrap_or_else(|| TraceContext::new(self.ids.as_ref())).child(self.ids.as_ref()));
                if let Some(event) = claimed.created() {
                    claimed.row.order_id = Some(event.head.order_id);
                    claimed.row.event_id = claimed.event_id;
                    claimed.row.lease.event_id = claimed.event_id;
                }
                claimed
            })
            .collect()
    }

    async fn attempt(&self, events: &[ClaimedEvent]) -> Result<Attempt, StoreError> {
        let mut tx = self.lot.begin(&self.config.kafka_group).await?;
        let mut facts = self.facts(tx.as_mut(), events).await?;
        let decisions: Vec<Decision> = events.iter().map(|claimed| self.decide(claimed, &mut facts)).collect();
        let lost = identify(tx.as_mut(), &decisions).await?;
        if !lost.is_empty() {
            return Ok(Attempt::Lost(lost));
        }
        let written = write(tx, events, &decisions).await.inspect_err(|error| self.commits.doubt(error))?;
        if events.iter().any(|claimed| claimed.ended.is_some()) {
            crash::point("retry_after_commit");
        }
        self.commits.report(written.rows);
        for (claimed, decision) in events.iter().zip(&decisions) {
            self.report(claimed, decision, written.lost.contains(&claimed.row.lease.id));
        }
        Ok(Attempt::Written(decisions))
    }

    async fn facts(&self, tx: &mut dyn LotTx, events: &[ClaimedEvent]) -> Result<Facts, StoreError> {
        let restored = events.iter().filter(|claimed| claimed.is_restored() && claimed.ended.is_none());
        let mut entries: Vec<_> = restored
            .filter_map(|claimed| {
                let order_id = Some(claimed.created()?.head.order_id);
                Some(InboxEntry { event_id: claimed.event_id, data_sha: claimed.digest.0, order_id })
            })
            .collect();
        // All workers insert in the same order, so that two of them cannot deadlock.
        entries.sort_by_key(|entry| entry.event_id);
        let gate = if entries.is_empty() { Gate::default() } else { tx.gate(&entries).await? };
        let known = Known::read(tx, events.iter().filter_map(ClaimedEvent::created).collect(), Vec::new()).await?;
        Ok(Facts { now: self.clock.now(), gate, known })
    }

    /// Returns whether handling has an effect outside; confirming has none.
    pub(super) fn handles_outside(&self) -> bool {
        matches!(self.worker.place, HandlerPlace::Lot(_))
    }
}

/// After an error of unknown outcome, drops the events that must not be decided twice, and marks the others as in doubt.
///
/// Whether a restored event has passed the gate is unknown then, and the gate passes nothing twice; the next claim finds out. If
/// a commit that was reported as failed did happen, the row already has the event's own id; the lease still names the old id, so
/// the row is not drained as a copy of itself.
fn doubted(mut events: Vec<ClaimedEvent>, error: &StoreError) -> Vec<ClaimedEvent> {
    if matches!(error, StoreError::Unknown { .. }) {
        events.retain(|claimed| !claimed.is_restored() || claimed.ended.is_some());
        for claimed in &mut events {
            claimed.in_doubt = true;
        }
    }
    events
}

/// Writes decisions and commits.
async fn write(mut tx: Box<dyn LotTx>, events: &[ClaimedEvent], decisions: &[Decision]) -> Result<Written, StoreError> {
    let lost = end_leases(tx.as_mut(), events, decisions).await?;
    let live: Vec<&Decision> = events
        .iter()
        .zip(decisions)
        .filter(|(claimed, _)| !lost.contains(&claimed.row.lease.id))
        .map(|(_, decision)| decision)
        .collect();
    let adopt: Vec<_> = live.iter().filter_map(|decision| decision.adopt.clone()).collect();
    let transitions: Vec<Transition> = live.iter().filter_map(|decision| decision.transition.clone()).collect();
    let passed = change_orders(tx.as_mut(), &adopt, &transitions).await?;
    if transitions.iter().any(|transition| !passed.contains(&transition.order_id)) {
        return Err(changed("lot.apply"));
    }
    let processed = transitions.into_iter().map(|transition| transition.event);
    let letters = live.iter().filter_map(|decision| decision.letter.clone());
    let duplicate = |(claimed, decision): (&ClaimedEvent, &Decision)| Some((claimed.event_id, decision.duplicate?));
    let mut journal = Journal {
        notes: live.iter().flat_map(|decision| decision.notes.clone()).collect(),
        events: processed.chain(letters).collect(),
        duplicates: events.iter().zip(decisions).filter_map(duplicate).collect(),
        ..Journal::default()
    };
    let rows = commit(tx, &mut journal).await?;
    Ok(Written { rows, lost })
}

/// Writes the identities of rows; returns the rows whose lease was lost.
async fn identify(tx: &mut dyn LotTx, decisions: &[Decision]) -> Result<HashSet<i64>, StoreError> {
    let identities: Vec<_> = decisions.iter().filter_map(|decision| decision.identity.clone()).collect();
    if identities.is_empty() {
        return Ok(HashSet::new());
    }
    let kept = tx.identify(&identities).await?;
    Ok(identities.iter().map(|identity| identity.lease.id).filter(|id| !kept.contains(id)).collect())
}

/// Writes what becomes of the rows; returns those whose lease was lost.
async fn end_leases(tx: &mut dyn LotTx, events: &[ClaimedEvent], decisions: &[Decision]) -> Result<HashSet<i64>, StoreError> {
    let mut kept = HashSet::new();
    let (mut drained, mut released): (Vec<Lease>, Vec<Release>) = Default::default();
    for (claimed, decision) in events.iter().zip(decisions) {
        match &decision.row {
            Row::Keep => drop(kept.insert(claimed.row.lease.id)),
            Row::Drain => drained.push(decision.lease_after(claimed.row.lease)),
            Row::Release(release) => released.push(Release { lease: decision.lease_after(release.lease), ..release.clone() }),
        }
    }
    if !drained.is_empty() {
        kept.extend(tx.drain(&drained).await?);
    }
    if !released.is_empty() {
        kept.extend(tx.release(&released).await?);
    }
    Ok(events.iter().map(|claimed| claimed.row.lease.id).filter(|id| !kept.contains(id)).collect())
}
