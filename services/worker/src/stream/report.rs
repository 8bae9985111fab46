//! Logs and metrics of records, after the commit.

use minishop_contracts::headers::kafka;
use minishop_core::clock::Timestamp;
use minishop_core::ids::{CorrelationId, OrderId};
use minishop_core::parking::{DeadCode, ErrorClass};
use minishop_platform::telemetry::propagation::TraceContext;

use super::plan::{EventResult, StreamOutcome};
use super::reinjected::named_place;
use crate::event::decode::{Content, Incoming};
use crate::metrics::WorkerMetrics;

impl StreamOutcome {
    /// Returns the outcome as a metric label.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Processed => "processed",
            Self::Ignored => "ignored",
            Self::Duplicate => "duplicate",
            Self::Copy => "copy",
            Self::Held => "held",
            Self::Parked => "parked",
            Self::Queued => "queued",
            Self::Dead(_) => "dead",
        }
    }
}

impl EventResult<'_> {
    /// Changes the outcome to ignored if the fence stopped the order's transition.
    pub(super) fn was_stopped(&mut self, stopped: impl Fn(OrderId) -> bool) {
        if self.outcome == StreamOutcome::Processed
            && self.incoming.created().is_some_and(|created| stopped(created.head.order_id))
        {
            self.outcome = StreamOutcome::Ignored;
        }
    }

    /// Counts and logs the outcome, and ends the span.
    pub(super) fn report(&self, now: Timestamp, metrics: &WorkerMetrics) {
        metrics.event(self.outcome.as_str());
        if let Some(span) = &self.span {
            span.record("outcome", self.outcome.as_str());
        }
        match (self.outcome, self.incoming.created()) {
            (StreamOutcome::Processed, Some(created)) => {
                let waited = now.signed_duration_since(created.head.created_at).to_std().unwrap_or_default();
                metrics.latency.observe(waited.as_secs_f64());
                let _in = self.span.as_ref().map(tracing::Span::enter);
                tracing::debug!("processed order {}", created.head.order_id);
            }
            (StreamOutcome::Dead(code), _) => {
                metrics.dead_letter(ErrorClass::Refused, code);
                dead(self.incoming, code);
            }
            (StreamOutcome::Held, _) => held(self.incoming),
            (StreamOutcome::Copy, _) => copy(self.incoming),
            _ => {}
        }
    }
}

/// Logs a dead letter: as an error if two records claim one identity (a fault or an attack), else as a producer's mistake.
fn dead(incoming: &Incoming<'_>, code: DeadCode) {
    let (record, correlation, trace) = (incoming.record, correlation_id(incoming), trace_id(incoming));
    let (correlation, trace) = (correlation.as_deref(), trace.as_deref());
    let code_text = code.as_str();
    if matches!(code, DeadCode::DuplicateConflict | DeadCode::ClientMismatch) {
        tracing::error!(
            topic = &*record.topic,
            partition = record.partition,
            offset = record.offset,
            error.code = code_text,
            correlation_id = correlation,
            trace_id = trace,
            "an event claims another event's identity; it becomes a dead letter"
        );
    } else {
        tracing::warn!(
            topic = &*record.topic,
            partition = record.partition,
            offset = record.offset,
            error.code = code_text,
            correlation_id = correlation,
            trace_id = trace,
            "a record is refused; it becomes a dead letter"
        );
    }
}

/// Logs a copy only if it is a dead letter that was produced again: somebody expects an effect.
fn copy(incoming: &Incoming<'_>) {
    let record = incoming.record;
    let Some((_, partition, offset)) = named_place(record) else { return };
    tracing::warn!(
        topic = &*record.topic,
        partition = record.partition,
        offset = record.offset,
        dead_letter.partition = partition,
        dead_letter.offset = offset,
        correlation_id = correlation_id(incoming),
        trace_id = trace_id(incoming),
        "a dead letter was produced to the topic again, without effect; to process it again, use redrive: minishop dlq redrive"
    );
}

fn held(incoming: &Incoming<'_>) {
    let Content::Newer { event_type, .. } = &incoming.content else { return };
    tracing::warn!(
        topic = &*incoming.record.topic,
        partition = incoming.record.partition,
        offset = incoming.record.offset,
        event.id = %incoming.event_id,
        event.r#type = event_type,
        correlation_id = correlation_id(incoming),
        trace_id = trace_id(incoming),
        "an event needs a newer worker; it and later events of its key wait"
    );
}

/// Returns a correlation id that is safe to log.
fn correlation_id(incoming: &Incoming<'_>) -> Option<String> {
    let of_header = || incoming.record.headers.get(kafka::CORRELATION_ID).and_then(CorrelationId::parse);
    let id = incoming.created().map(|created| created.head.correlation_id.clone()).or_else(of_header)?;
    Some(id.as_str().to_owned())
}

fn trace_id(incoming: &Incoming<'_>) -> Option<String> {
    let parent = incoming.record.headers.get(kafka::TRACEPARENT)?;
    Some(TraceContext::parse(parent, None)?.trace_id().to_owned())
}
