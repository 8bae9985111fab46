//! One transaction per batch of records: inbox gate, parked keys, known orders, adoption, fence, journal.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use minishop_bus::Record;
use minishop_core::clock::Clock;
use minishop_core::crash;
use minishop_core::ids::Ids;
use minishop_core::misses::Misses;
use minishop_core::parking::DeadCode;
use minishop_core::position::Position;
use minishop_core::timeline::NoteKind;
use minishop_platform::config::Config;
use minishop_platform::ctx::{Commits, Ctx};
use minishop_store::{ConsumerTx, Inbox, Note, OutboxRow, StoreError, Transition};
use tokio::time::Instant;

use super::plan::{EventResult, Plan, Refusals, Spans, StreamOutcome};
use super::{reinjected, rows};
use crate::commit::{change_orders, commit};
use crate::event::decode::{Incoming, Refused, decode};
use crate::event::known::Known;
use crate::event::outgoing::EventWriter;
use crate::handlers::HandlerPlace;
use crate::metrics::WorkerMetrics;
use crate::worker_shared::WorkerShared;

/// Settles records, batch by batch.
#[derive(Debug)]
pub struct Processor {
    pub(super) inbox: Arc<dyn Inbox>,
    pub(super) commits: Commits,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ids: Arc<dyn Ids>,
    pub(super) config: Arc<Config>,
    metrics: WorkerMetrics,
    pub(super) events: EventWriter,
    worker: WorkerShared,
    pub(super) misses: Misses,
}

/// The store's positions as last seen.
pub(super) struct Seen(pub(super) Vec<Position>);

impl Seen {
    /// Notes committed positions: the store's are at least as high.
    fn raise(&mut self, positions: &[Position]) {
        for position in positions {
            let of = self.0.iter_mut().find(|seen| seen.partition == position.partition && seen.topic == position.topic);
            match of {
                Some(seen) => seen.next_offset = seen.next_offset.max(position.next_offset),
                None => self.0.push(position.clone()),
            }
        }
    }
}

/// How an attempt to settle a batch ended.
pub(super) enum Attempt {
    /// Committed, with the batch's positions.
    Settled(Vec<Position>),
    /// Nothing was written: take the steps. The given records must be refused, under ids of their own.
    Again(Refusals, Spans),
}

impl Processor {
    /// Creates a processor; the group's name is the consumer's name in the inbox.
    pub fn new(ctx: &Ctx, metrics: WorkerMetrics, worker: WorkerShared) -> Self {
        Self {
            inbox: ctx.store.inbox.clone(),
            commits: ctx.commits(),
            clock: ctx.clock.clone(),
            ids: ctx.ids.clone(),
            events: EventWriter::new(&ctx.config),
            config: ctx.config.clone(),
            metrics,
            worker,
            misses: Misses::default(),
        }
    }

    /// Settles all records in order; returns each partition's position. `seen` holds the store's positions as last seen: a store
    /// with a lower one has gone back, and nothing is written to it (`minishop_store::Why::WentBack`).
    ///
    /// After an error, records before the failing batch are settled; processing all of them again changes nothing.
    pub async fn step(&self, records: &[Record], seen: &[Position]) -> Result<Vec<Position>, StoreError> {
        let mut seen = Seen(seen.to_vec());
        let incoming: Vec<Incoming<'_>> = records.iter().map(|record| decode(record, &self.worker.versions)).collect();
        let mut settled = HashMap::new();
        let mut rest = incoming.as_slice();
        while !rest.is_empty() {
            let (batch, behind) = rest.split_at(rows::batch_length(rest));
            let positions = self.settle_or_split(batch, &mut seen).await?;
            settled.extend(positions.into_iter().map(|p| ((p.topic, p.partition), p.next_offset)));
            rest = behind;
        }
        Ok(settled.into_iter().map(|((topic, partition), next_offset)| Position { topic, partition, next_offset }).collect())
    }

    /// Settles a batch. One that fails for good is halved until the failing record is alone; that becomes a dead letter only if
    /// its own values are to blame, not a broken database.
    async fn settle_or_split(&self, batch: &[Incoming<'_>], seen: &mut Seen) -> Result<Vec<Position>, StoreError> {
        match self.settle(batch, Refusals::new(), seen).await {
            Err(error @ StoreError::Fail { .. }) if batch.len() > 1 && !error.is_sync_failure() => {
                tracing::warn!(record.count = batch.len(), error = ?error, "the store refuses a batch; splitting it");
                let (first, second) = batch.split_at(batch.len() / 2);
                let mut positions = Box::pin(self.settle_or_split(first, seen)).await?;
                positions.extend(Box::pin(self.settle_or_split(second, seen)).await?);
                Ok(positions)
            }
            Err(error) if batch.len() == 1 && error.blames_the_input() => {
                tracing::error!(error = ?error, "the store refuses an event; it becomes a dead letter");
                let event_type = batch[0].created().map(|created| created.event_type.clone());
                let refused = Refused { event_type, ..Refused::by_the_store() };
                self.settle(batch, Refusals::from([(0, refused)]), seen).await
            }
            other => other,
        }
    }

    /// Settles a batch. Records that turn out to be refused are settled in another attempt, under ids of their own: a refused
    /// record must not take the inbox row of the good event whose id it bears.
    async fn settle(&self, batch: &[Incoming<'_>], mut refusals: Refusals, seen: &mut Seen) -> Result<Vec<Position>, StoreError> {
        crash::point("after_handler_before_tx");
        let mut attempt = Attempt::Again(Refusals::new(), Spans::new());
        if refusals.is_empty() {
            attempt = self.settle_announced(batch, seen).await?;
        }
        loop {
            match attempt {
                Attempt::Settled(positions) => {
                    seen.raise(&positions);
                    return Ok(positions);
                }
                Attempt::Again(more, spans) => {
                    refusals.extend(more);
                    attempt = self.take_the_steps(batch, &refusals, spans, seen).await?;
                }
            }
        }
    }

    /// Returns whether events are handled from the lot.
    pub(super) fn hands_to_the_lot(&self) -> bool {
        matches!(self.worker.place, HandlerPlace::Lot(_))
    }

    /// Settles a batch step by step in one transaction.
    async fn take_the_steps<'r>(
        &self,
        batch: &'r [Incoming<'r>],
        refusals: &Refusals,
        spans: Spans,
        seen: &Seen,
    ) -> Result<Attempt, StoreError> {
        let started = Instant::now();
        let mut plan = Plan::new(self.clock.now(), rows::positions(batch), spans);
        plan.journal.seen.clone_from(&seen.0);
        plan.to_the_lot = self.hands_to_the_lot();
        let mut tx = self.inbox.begin(&self.config.kafka_group).await?;
        let reinjected = reinjected::find(tx.as_mut(), batch, refusals).await?;
        let fresh = gate(tx.as_mut(), batch, refusals, &reinjected, &mut plan).await?;
        let keys: Vec<Bytes> = fresh.iter().filter(|(_, i)| i.is_event()).map(|(_, i)| i.key.clone()).collect();
        plan.parked_keys = if keys.is_empty() { HashSet::new() } else { tx.parked_keys(&keys).await? };
        // Refused records are left out: the store may be unable to take their values even in a query.
        let asked = fresh.iter().filter(|(n, _)| !refusals.contains_key(n)).filter_map(|(_, i)| i.created()).collect();
        let held = fresh.iter().filter_map(|(_, i)| i.held_order()).collect();
        plan.known = Known::read(tx.as_mut(), asked, held).await?;
        for (n, incoming) in fresh {
            match refusals.get(&n) {
                Some(refused) => plan.refuse(incoming, refused, &self.events),
                None => plan.decide(n, incoming, &self.events, self.ids.as_ref()),
            }
        }
        if !plan.refusals.is_empty() {
            let refusals = std::mem::take(&mut plan.refusals);
            return Ok(Attempt::Again(refusals, plan.into_spans()));
        }
        let handed_over = write(tx, &mut plan).await.inspect_err(|error| self.commits.doubt(error))?;
        self.committed(&plan, handed_over, started);
        Ok(Attempt::Settled(plan.journal.positions))
    }

    /// Reports the commit, wakes the lot, and records metrics and logs.
    pub(super) fn committed(&self, plan: &Plan<'_>, rows: Vec<OutboxRow>, started: Instant) {
        self.commits.report(rows);
        if plan.results.iter().any(|result| result.outcome == StreamOutcome::Queued) {
            self.worker.lot_waker.wake();
        }
        if plan.results.iter().any(|result| result.outcome == StreamOutcome::Parked) {
            self.worker.lot_waker.wake_behind();
        }
        #[expect(clippy::cast_precision_loss, reason = "a batch has at most some hundred records")]
        self.metrics.batch.observe(plan.results.len() as f64);
        self.metrics.transaction.observe(started.elapsed().as_secs_f64());
        let now = self.clock.now();
        for result in &plan.results {
            result.report(now, &self.metrics);
        }
    }
}

/// Passes the inbox gate; returns the new records with their indexes in the batch. Copies and `reinjected` records are noted as
/// copies; another event under a known id is refused.
async fn gate<'r>(
    tx: &mut dyn ConsumerTx,
    batch: &'r [Incoming<'r>],
    refusals: &Refusals,
    reinjected: &HashSet<usize>,
    plan: &mut Plan<'r>,
) -> Result<Vec<(usize, &'r Incoming<'r>)>, StoreError> {
    let id = |n: usize, incoming: &Incoming<'_>| rows::settled_id(incoming, refusals.contains_key(&n));
    let (copies, others): (Vec<_>, Vec<_>) = batch.iter().enumerate().partition(|(n, _)| reinjected.contains(n));
    plan.results.extend(copies.into_iter().map(|(_, incoming)| EventResult {
        incoming,
        outcome: StreamOutcome::Copy,
        span: None,
    }));
    let mut entries: Vec<_> = others.iter().map(|(n, incoming)| rows::entry(id(*n, incoming), incoming)).collect();
    // All workers insert in the same order, so that two of them cannot deadlock.
    entries.sort_by_key(|entry| entry.event_id);
    let gate = tx.gate(&entries).await?;
    let (fresh, seen): (Vec<_>, Vec<_>) = others.into_iter().partition(|(n, incoming)| gate.fresh.contains(&id(*n, incoming)));
    for (n, incoming) in seen {
        // Only the record itself can be settled under an id of its own, unless somebody forged it: refusing it again would never
        // end.
        let own = refusals.contains_key(&n) || !incoming.is_event();
        if !own && gate.settled.get(&incoming.event_id).is_some_and(|settled| !incoming.digest.is_of(settled)) {
            plan.refuse_next(n, DeadCode::DuplicateConflict, "another event was settled under this event id", incoming);
        } else {
            plan.results.push(EventResult { incoming, outcome: StreamOutcome::Copy, span: None });
        }
    }
    Ok(fresh)
}

/// Writes a plan and commits; returns the committed outbox rows.
pub(super) async fn write(mut tx: Box<dyn ConsumerTx>, plan: &mut Plan<'_>) -> Result<Vec<OutboxRow>, StoreError> {
    let passed = change_orders(tx.as_mut(), &plan.adopt, &plan.transitions).await?;
    for stopped in plan.transitions.iter().filter(|t| !passed.contains(&t.order_id)) {
        let Transition { order_id, at, cause, .. } = *stopped;
        plan.journal.notes.push(Note { order_id, kind: NoteKind::Ignored, at, cause, detail: None });
    }
    crash::point("mid_worker_tx");
    let transitions = std::mem::take(&mut plan.transitions).into_iter();
    let processed = transitions.filter(|t| passed.contains(&t.order_id)).map(|transition| transition.event);
    let dead = std::mem::take(&mut plan.journal.events);
    plan.journal.events = processed.chain(dead).collect();
    let rows = commit(tx, &mut plan.journal).await?;
    for result in &mut plan.results {
        result.was_stopped(|order| !passed.contains(&order));
    }
    Ok(rows)
}
