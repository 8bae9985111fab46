//! The writes of a batch, decided record by record.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use minishop_core::clock::Timestamp;
use minishop_core::ids::{EventId, Ids, OrderId};
use minishop_core::parking::DeadCode;
use minishop_core::position::Position;
use minishop_core::timeline::NoteKind;
use minishop_platform::telemetry::propagation::TraceContext;
use minishop_store::{AdoptedOrder, Journal, Note, Transition};
use tracing::Span;

use super::rows;
use crate::event::decode::{Content, CreatedEvent, Incoming, Refused};
use crate::event::judge::{Verdict, judge};
use crate::event::known::{self, Known};
use crate::event::outgoing::{Death, EventWriter};

/// Records that are refused although they decode, by index in the batch.
pub(super) type Refusals = HashMap<usize, Refused>;

/// Spans by event id that an earlier attempt of the batch began, so that each event has one span.
pub(super) type Spans = HashMap<EventId, Span>;

/// The outcome of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamOutcome {
    Processed,
    /// Its order is not in the expected state: a recorded no-op.
    Ignored,
    /// Another event announced the same order.
    Duplicate,
    /// The same event was settled before.
    Copy,
    /// A newer version, held for a newer worker.
    Held,
    /// It waits behind another event of its key.
    Parked,
    /// It waits for the handler, due at once.
    Queued,
    Dead(DeadCode),
}

/// A record and its outcome, reported after the commit.
#[derive(Debug)]
pub(super) struct EventResult<'r> {
    pub incoming: &'r Incoming<'r>,
    pub outcome: StreamOutcome,
    pub span: Option<Span>,
}

/// The writes of a batch.
#[derive(Debug)]
pub(super) struct Plan<'r> {
    now: Timestamp,
    spans: Spans,
    /// The batch's orders as the store knows them, and those that the batch adopts.
    pub known: Known,
    /// Whether events are handled from the lot; if so, none is handled here.
    pub to_the_lot: bool,
    /// Keys whose events must wait; grows as this batch parks events.
    pub parked_keys: HashSet<Bytes>,
    pub adopt: Vec<AdoptedOrder>,
    pub transitions: Vec<Transition>,
    pub journal: Journal,
    pub results: Vec<EventResult<'r>>,
    /// Records to settle under another id; if there are any, nothing of this plan is written.
    pub refusals: Refusals,
}

impl<'r> Plan<'r> {
    pub(super) fn new(now: Timestamp, positions: Vec<Position>, spans: Spans) -> Self {
        Self {
            now,
            spans,
            known: Known::default(),
            to_the_lot: false,
            parked_keys: HashSet::new(),
            adopt: Vec::new(),
            transitions: Vec::new(),
            journal: Journal { positions, ..Journal::default() },
            results: Vec::new(),
            refusals: Refusals::new(),
        }
    }

    /// Decides on a new record.
    pub(super) fn decide(&mut self, n: usize, incoming: &'r Incoming<'r>, events: &EventWriter, ids: &dyn Ids) {
        match &incoming.content {
            Content::Refused(refused) => self.refuse(incoming, refused, events),
            Content::Newer { event_type, .. } => {
                self.note_held(incoming, event_type);
                self.parked_keys.insert(incoming.key.clone());
                self.journal.parked.push(rows::held(incoming, event_type));
                self.results.push(EventResult { incoming, outcome: StreamOutcome::Held, span: None });
            }
            Content::Created(event) => self.decide_created(n, incoming, event, events, ids),
        }
    }

    fn decide_created(
        &mut self,
        n: usize,
        incoming: &'r Incoming<'r>,
        event: &CreatedEvent,
        events: &EventWriter,
        ids: &dyn Ids,
    ) {
        let verdict = self.judge(incoming, event);
        let outcome = match verdict {
            Verdict::Refuse(code, message) => return self.refuse_next(n, code, message, incoming),
            Verdict::Duplicate(of) => {
                self.journal.duplicates.push((incoming.event_id, of));
                StreamOutcome::Duplicate
            }
            Verdict::Ignore => StreamOutcome::Ignored,
            Verdict::Adopt | Verdict::Handle if self.parked_keys.contains(&incoming.key) => StreamOutcome::Parked,
            Verdict::Adopt | Verdict::Handle if self.to_the_lot => StreamOutcome::Queued,
            Verdict::Adopt | Verdict::Handle => StreamOutcome::Processed,
        };
        self.carry_out(outcome, verdict == Verdict::Adopt, incoming, event, events, ids);
    }

    /// Takes the order of a new event to be as the event announces it. The statement that writes such a plan checks it.
    pub(super) fn take_as_announced(
        &mut self,
        incoming: &'r Incoming<'r>,
        event: &CreatedEvent,
        events: &EventWriter,
        ids: &dyn Ids,
    ) {
        self.carry_out(StreamOutcome::Processed, false, incoming, event, events, ids);
    }

    fn carry_out(
        &mut self,
        outcome: StreamOutcome,
        adopts: bool,
        incoming: &'r Incoming<'r>,
        event: &CreatedEvent,
        events: &EventWriter,
        ids: &dyn Ids,
    ) {
        if adopts {
            let order = known::adopted(incoming.event_id, event);
            // The next event of its key is judged against it.
            self.known.add(known::known_of(&order));
            self.adopt.push(order);
            self.note(event.head.order_id, NoteKind::Adopted, incoming, None);
        }
        let trace = event.trace.clone().unwrap_or_else(|| TraceContext::new(ids));
        // At this level it costs nothing unless spans are exported, or the log shows the line inside it.
        let span = self.spans.remove(&incoming.event_id).unwrap_or_else(|| {
            tracing::debug_span!(
                "worker.order.process",
                order.id = %event.head.order_id,
                event.id = %incoming.event_id,
                correlation_id = %event.head.correlation_id,
                trace_id = trace.trace_id(),
                outcome = tracing::field::Empty
            )
        });
        let trace = trace.continue_in(&span, ids);
        match outcome {
            StreamOutcome::Processed => {
                // An adopted order starts at version 1, whatever sequence its event bears.
                let expected = if adopts { 1 } else { event.sequence };
                self.transitions.push(events.processed(incoming.event_id, event, expected, self.now, &trace));
            }
            StreamOutcome::Parked => {
                self.journal.parked.push(rows::waiting(incoming, &event.event_type));
                self.note(event.head.order_id, NoteKind::Parked, incoming, Some(r#"{"because":"order"}"#));
            }
            StreamOutcome::Queued => {
                self.parked_keys.insert(incoming.key.clone());
                self.journal.parked.push(rows::due(incoming, &event.event_type));
                self.note(event.head.order_id, NoteKind::Parked, incoming, Some(r#"{"because":"handler"}"#));
            }
            StreamOutcome::Ignored => self.note(event.head.order_id, NoteKind::Ignored, incoming, None),
            _ => {}
        }
        self.results.push(EventResult { incoming, outcome, span: Some(span) });
    }

    /// Gives up a plan that was not written; returns the spans that it began.
    pub(super) fn into_spans(mut self) -> Spans {
        let begun = self.results.into_iter().filter_map(|result| Some((result.incoming.event_id, result.span?)));
        self.spans.extend(begun);
        self.spans
    }

    /// Notes in the order's timeline that its event is held, but only for the event that announced it: any other could name any
    /// order.
    fn note_held(&mut self, incoming: &Incoming<'_>, event_type: &str) {
        let order = incoming.held_order().and_then(|id| self.known.by_id(id));
        if let Some(order) = order.filter(|order| order.created_event_id == incoming.event_id) {
            let detail = serde_json::json!({ "needsType": event_type }).to_string();
            self.note(order.order_id, NoteKind::Held, incoming, Some(&detail));
        }
    }

    fn judge(&self, incoming: &Incoming<'_>, event: &CreatedEvent) -> Verdict {
        let by_id = self.known.by_id(event.head.order_id);
        judge(incoming.event_id, event, by_id, self.known.by_key(&event.head.client_id, &event.head.key))
    }

    fn note(&mut self, order_id: OrderId, kind: NoteKind, incoming: &Incoming<'_>, detail: Option<&str>) {
        let detail = detail.map(str::to_owned);
        self.journal.notes.push(Note { order_id, kind, at: self.now, cause: incoming.event_id, detail });
    }

    /// Makes a record a dead letter, under an id of its own.
    pub(super) fn refuse(&mut self, incoming: &'r Incoming<'r>, refused: &Refused, events: &EventWriter) {
        let id = rows::settled_id(incoming, true);
        self.journal.events.push(events.dead_letter(
            id,
            incoming.record,
            &Death::at_the_gate(refused, incoming.record, self.now),
        ));
        self.journal.parked.push(rows::dead(id, incoming, refused, self.now));
        self.results.push(EventResult { incoming, outcome: StreamOutcome::Dead(refused.code), span: None });
    }

    /// Leaves a record to the next attempt, which refuses it.
    pub(super) fn refuse_next(&mut self, n: usize, code: DeadCode, message: &str, incoming: &Incoming<'_>) {
        let event_type = incoming.created().map(|created| created.event_type.clone());
        self.refusals.insert(n, Refused { code, message: message.to_owned(), event_type });
    }
}
