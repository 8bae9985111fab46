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
    /// Rolled back: other workers have these rows now, and the gate must not be passed for them.
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
        mut cases: Vec<ClaimedEvent>,
    ) -> Result<Vec<ClaimedEvent>, (Vec<ClaimedEvent>, StoreError)> {
        match self.attempt(&cases).await {
            Ok(Attempt::Written(changes)) => Ok(self.calls_of(cases, &changes)),
            Ok(Attempt::Lost(ids)) => {
                cases.retain(|case| !ids.contains(&case.row.lease.id));
                Box::pin(self.decide_and_write(cases)).await
            }
            Err(error @ StoreError::Fail { .. }) if cases.len() > 1 && !error.is_sync_failure() => {
                tracing::warn!(event.count = cases.len(), error = ?error, "the store refuses a batch of parked events; splitting it");
                self.one_by_one(cases).await
            }
            Err(error) if cases.len() == 1 && error.blames_the_input() => {
                tracing::error!(error = ?error, "the store refuses a parked event; it becomes a dead letter");
                let refused = |case| ClaimedEvent { content: Content::Refused(Refused::by_the_store()), ..case };
                let condemned: Vec<ClaimedEvent> = cases.into_iter().map(refused).collect();
                match self.attempt(&condemned).await {
                    Ok(_) => Ok(Vec::new()),
                    Err(error) => Err((doubted(condemned, &error), error)),
                }
            }
            Err(error) => Err((doubted(cases, &error), error)),
        }
    }

    async fn one_by_one(&self, cases: Vec<ClaimedEvent>) -> Result<Vec<ClaimedEvent>, (Vec<ClaimedEvent>, StoreError)> {
        let (mut calls, mut rest) = (Vec::new(), cases.into_iter());
        while let Some(case) = rest.next() {
            match Box::pin(self.decide_and_write(vec![case])).await {
                Ok(more) => calls.extend(more),
                Err((back, error)) => {
                    // The calls found so far have not started; they are decided again.
                    return Err((calls.into_iter().chain(back).chain(rest).collect(), error));
                }
            }
        }
        Ok(calls)
    }

    fn calls_of(&self, cases: Vec<ClaimedEvent>, changes: &[Decision]) -> Vec<ClaimedEvent> {
        let called = cases.into_iter().zip(changes).filter(|(_, change)| change.outcome == LotOutcome::Called);
        called
            .map(|(mut case, _)| {
                let of_event = case.created().and_then(|event| event.trace.clone());
                case.trace = Some(of_event.unwrap_or_else(|| TraceContext::new(self.ids.as_ref())).child(self.ids.as_ref()));
                if let Some(event) = case.created() {
                    case.row.order_id = Some(event.head.order_id);
                    case.row.event_id = case.event_id;
                    case.row.lease.event_id = case.event_id;
                }
                case
            })
            .collect()
    }

    async fn attempt(&self, cases: &[ClaimedEvent]) -> Result<Attempt, StoreError> {
        let mut tx = self.lot.begin(&self.config.kafka_group).await?;
        let mut facts = self.facts(tx.as_mut(), cases).await?;
        let changes: Vec<Decision> = cases.iter().map(|case| self.decide(case, &mut facts)).collect();
        let lost = identify(tx.as_mut(), &changes).await?;
        if !lost.is_empty() {
            return Ok(Attempt::Lost(lost));
        }
        let written = write(tx, cases, &changes).await.inspect_err(|error| self.commits.doubt(error))?;
        if cases.iter().any(|case| case.ended.is_some()) {
            crash::point("retry_after_commit");
        }
        self.commits.report(written.rows);
        for (case, change) in cases.iter().zip(&changes) {
            self.tell(case, change, written.lost.contains(&case.row.lease.id));
        }
        Ok(Attempt::Written(changes))
    }

    async fn facts(&self, tx: &mut dyn LotTx, cases: &[ClaimedEvent]) -> Result<Facts, StoreError> {
        let restored = cases.iter().filter(|case| case.is_restored() && case.ended.is_none());
        let mut entries: Vec<_> = restored
            .filter_map(|case| {
                let order_id = Some(case.created()?.head.order_id);
                Some(InboxEntry { event_id: case.event_id, data_sha: case.digest.0, order_id })
            })
            .collect();
        // All workers insert in the same order, so that two of them cannot deadlock.
        entries.sort_by_key(|entry| entry.event_id);
        let gate = if entries.is_empty() { Gate::default() } else { tx.gate(&entries).await? };
        let known = Known::read(tx, cases.iter().filter_map(ClaimedEvent::created).collect(), Vec::new()).await?;
        Ok(Facts { now: self.clock.now(), gate, known })
    }

    /// Returns whether handling has an effect outside; confirming has none.
    pub(super) fn handles_outside(&self) -> bool {
        matches!(self.setup.place, HandlerPlace::Lot(_))
    }
}

/// After an error of unknown outcome, drops the events that must not be decided twice, and marks the others as in doubt.
///
/// Whether a restored event has passed the gate is unknown then, and the gate passes nothing twice; the next claim finds out. If
/// a commit that was reported as failed did happen, the row bears the event's own id by now; the lease still names the old id, so
/// the row is not drained as a copy of itself.
fn doubted(mut cases: Vec<ClaimedEvent>, error: &StoreError) -> Vec<ClaimedEvent> {
    if matches!(error, StoreError::Unknown { .. }) {
        cases.retain(|case| !case.is_restored() || case.ended.is_some());
        for case in &mut cases {
            case.in_doubt = true;
        }
    }
    cases
}

/// Writes decisions and commits.
async fn write(mut tx: Box<dyn LotTx>, cases: &[ClaimedEvent], changes: &[Decision]) -> Result<Written, StoreError> {
    let lost = end_leases(tx.as_mut(), cases, changes).await?;
    let live: Vec<&Decision> =
        cases.iter().zip(changes).filter(|(case, _)| !lost.contains(&case.row.lease.id)).map(|(_, change)| change).collect();
    let adopt: Vec<_> = live.iter().filter_map(|change| change.adopt.clone()).collect();
    let transitions: Vec<Transition> = live.iter().filter_map(|change| change.transition.clone()).collect();
    let passed = change_orders(tx.as_mut(), &adopt, &transitions).await?;
    if transitions.iter().any(|transition| !passed.contains(&transition.order_id)) {
        return Err(changed("lot.apply"));
    }
    let processed = transitions.into_iter().map(|transition| transition.event);
    let letters = live.iter().filter_map(|change| change.letter.clone());
    let duplicate = |(case, change): (&ClaimedEvent, &Decision)| Some((case.event_id, change.duplicate?));
    let mut journal = Journal {
        notes: live.iter().flat_map(|change| change.notes.clone()).collect(),
        events: processed.chain(letters).collect(),
        duplicates: cases.iter().zip(changes).filter_map(duplicate).collect(),
        ..Journal::default()
    };
    let rows = commit(tx, &mut journal).await?;
    Ok(Written { rows, lost })
}

/// Writes the identities of rows; returns the rows whose lease was lost.
async fn identify(tx: &mut dyn LotTx, changes: &[Decision]) -> Result<HashSet<i64>, StoreError> {
    let identities: Vec<_> = changes.iter().filter_map(|change| change.identity.clone()).collect();
    if identities.is_empty() {
        return Ok(HashSet::new());
    }
    let held = tx.identify(&identities).await?;
    Ok(identities.iter().map(|identity| identity.lease.id).filter(|id| !held.contains(id)).collect())
}

/// Writes what becomes of the rows; returns those whose lease was lost.
async fn end_leases(tx: &mut dyn LotTx, cases: &[ClaimedEvent], changes: &[Decision]) -> Result<HashSet<i64>, StoreError> {
    let mut held = HashSet::new();
    let (mut drained, mut released): (Vec<Lease>, Vec<Release>) = Default::default();
    for (case, change) in cases.iter().zip(changes) {
        match &change.row {
            Row::Keep => drop(held.insert(case.row.lease.id)),
            Row::Drain => drained.push(change.lease_after(case.row.lease)),
            Row::Release(release) => released.push(Release { lease: change.lease_after(release.lease), ..release.clone() }),
        }
    }
    if !drained.is_empty() {
        held.extend(tx.drain(&drained).await?);
    }
    if !released.is_empty() {
        held.extend(tx.release(&released).await?);
    }
    Ok(cases.iter().map(|case| case.row.lease.id).filter(|id| !held.contains(id)).collect())
}
