//! W3C Trace Context: parsed strictly and passed on with a new span id, so that one trace id covers an order's whole path.
//!
//! Source: <https://www.w3.org/TR/trace-context/>.

use std::ops::Range;

use minishop_core::hex;
use minishop_core::ids::Ids;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The trace that a request or a record belongs to. Each order has some: the ids are kept as they are written.
#[derive(Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// The `traceparent` header: version, 32 digits of the trace id, 16 of the span id, flags.
    parent: [u8; 55],
    tracestate: Option<String>,
}

const TRACE_ID: Range<usize> = 3..35;
const SPAN_ID: Range<usize> = 36..52;
const FLAGS: Range<usize> = 53..55;

impl std::fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TraceContext").field("parent", &self.traceparent()).field("state", &self.tracestate).finish()
    }
}

impl TraceContext {
    /// Parses the two headers; `None` when `traceparent` is not valid. An invalid `tracestate` alone is dropped.
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let mut parts = traceparent.split('-');
        let (version, trace_id, span_id, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |text: &str, length| text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let sound = hex(version, 2) && version != "ff" && hex(trace_id, 32) && hex(span_id, 16) && hex(flags, 2);
        let zero = trace_id.bytes().all(|b| b == b'0') || span_id.bytes().all(|b| b == b'0');
        // Version 00 has exactly four parts; later versions may have more.
        let too_long = version == "00" && parts.next().is_some();
        if !sound || zero || too_long {
            return None;
        }
        let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        let tracestate = tracestate.filter(|state| sound_state(state)).map(str::to_owned);
        Some(Self { tracestate, ..Self::of(trace_id, span_id, sampled) })
    }

    /// Makes a context of 32 and 16 digits.
    fn of(trace_id: &str, span_id: &str, sampled: bool) -> Self {
        let mut parent = *b"00-00000000000000000000000000000000-0000000000000000-00";
        parent[TRACE_ID].copy_from_slice(trace_id.as_bytes());
        parent[SPAN_ID].copy_from_slice(span_id.as_bytes());
        parent[FLAGS].copy_from_slice(if sampled { b"01" } else { b"00" });
        Self { parent, tracestate: None }
    }

    /// Starts a new trace, marked as sampled.
    pub fn new(ids: &dyn Ids) -> Self {
        let random: Vec<u8> = ids.random().into_iter().chain(ids.random()).take(16).collect();
        let trace_id = hex::encode(&random);
        // All zeros is not a trace id; the chance is 2^-128, and the check costs nothing.
        let trace_id = if trace_id.bytes().all(|b| b == b'0') { "1".repeat(32) } else { trace_id };
        Self::of(&trace_id, &span_id(ids), true)
    }

    /// Returns the context of a span that starts a trace: the span's own while spans are exported, else a new one.
    pub fn begin_in(span: &Span, ids: &dyn Ids) -> Self {
        current(span).unwrap_or_else(|| Self::new(ids))
    }

    /// Returns the context of a step below this one: same trace, new span.
    #[must_use]
    pub fn child(&self, ids: &dyn Ids) -> Self {
        let mut child = self.clone();
        child.parent[SPAN_ID].copy_from_slice(span_id(ids).as_bytes());
        child
    }

    /// Makes `span` a part of this trace and returns the context to pass on.
    ///
    /// That is the span's own context while spans are exported, else a child of this one: the trace id survives either way. Call
    /// it before the span is entered.
    #[must_use]
    pub fn continue_in(&self, span: &Span, ids: &dyn Ids) -> Self {
        if span.is_disabled() {
            return self.child(ids);
        }
        attach_parent(span, self);
        match current(span) {
            // A span that has already begun keeps its own trace.
            Some(own) if own.trace_id() == self.trace_id() => Self { tracestate: self.tracestate.clone(), ..own },
            _ => self.child(ids),
        }
    }

    /// Returns the `traceparent` header.
    pub fn traceparent(&self) -> &str {
        self.part(0..55)
    }

    /// Returns the `tracestate` header to pass on.
    pub fn tracestate(&self) -> Option<&str> {
        self.tracestate.as_deref()
    }

    /// Writes both headers, `tracestate` on a second line if there is one.
    pub fn to_text(&self) -> String {
        self.tracestate().map_or_else(|| self.traceparent().to_owned(), |state| format!("{}\n{state}", self.traceparent()))
    }

    /// Reads what [`TraceContext::to_text`] has written.
    pub fn from_text(text: &str) -> Option<Self> {
        text.split_once('\n').map_or_else(|| Self::parse(text, None), |(parent, state)| Self::parse(parent, Some(state)))
    }

    /// Returns the trace id, 32 hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        self.part(TRACE_ID)
    }

    fn part(&self, part: Range<usize>) -> &str {
        std::str::from_utf8(&self.parent[part]).expect("digits and hyphens")
    }
}

/// Makes a span the child of a received context. Does nothing while no spans are exported.
pub fn attach_parent(span: &Span, parent: &TraceContext) {
    let (trace, id) = (TraceId::from_hex(parent.trace_id()), SpanId::from_hex(parent.part(SPAN_ID)));
    let (Ok(trace), Ok(id)) = (trace, id) else { return };
    let state = parent.tracestate().and_then(|state| state.parse::<TraceState>().ok()).unwrap_or_default();
    let flags = TraceFlags::new(u8::from(parent.parent[FLAGS] == *b"01"));
    let remote = SpanContext::new(trace, id, flags, true, state);
    // Fails if nothing is exported or the span has begun: the trace then continues without the span.
    let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(remote));
}

/// Returns the context of a span; `None` while no spans are exported.
fn current(span: &Span) -> Option<TraceContext> {
    let context = span.context();
    let own = context.span().span_context().clone();
    let (trace_id, span_id) = (own.trace_id().to_string(), own.span_id().to_string());
    own.is_valid().then(|| TraceContext::of(&trace_id, &span_id, own.is_sampled()))
}

fn span_id(ids: &dyn Ids) -> String {
    let random = ids.random();
    let number = u64::from_be_bytes(random[..8].try_into().expect("eight of ten bytes")).max(1);
    format!("{number:016x}")
}

/// Returns whether a `tracestate` is printable ASCII of at most 32 members and 512 characters, each member `key=value`.
fn sound_state(state: &str) -> bool {
    state.len() <= 512
        && state.bytes().all(|b| matches!(b, b' '..=b'~' | b'\t'))
        && state.split(',').count() <= 32
        && state.split(',').all(|member| member.trim().is_empty() || member.contains('='))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemIds;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_child_keeps_the_trace_and_changes_the_span() {
        let parent = TraceContext::parse(GOOD, Some("a=1")).expect("valid");
        let child = parent.child(&SystemIds);
        assert_eq!(child.trace_id(), "0af7651916cd43dd8448eb211c80319c");
        assert_ne!(child.traceparent(), parent.traceparent());
        assert_eq!(child.tracestate(), Some("a=1"));
        assert!(TraceContext::parse(child.traceparent(), None).is_some());
    }

    #[test]
    fn malformed_trace_contexts_are_not_taken() {
        let zero_trace = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
        let zero_span = "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01";
        for bad in [
            "",
            "00",
            zero_trace,
            zero_span,
            &GOOD.replace("00-", "ff-"),
            &GOOD.to_uppercase(),
            &GOOD[..54],
            &format!("{GOOD}-00"),
        ] {
            assert_eq!(TraceContext::parse(bad, None), None, "{bad}");
        }
    }

    #[test]
    fn a_context_survives_as_text() {
        for state in [None, Some("a=1,b=2")] {
            let context = TraceContext::parse(GOOD, state).expect("valid");
            assert_eq!(TraceContext::from_text(&context.to_text()), Some(context));
        }
    }

    #[test]
    fn a_long_tracestate_is_dropped_and_the_trace_kept() {
        let long = (0..33).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        let context = TraceContext::parse(GOOD, Some(&long)).expect("the trace is kept");
        assert_eq!(context.tracestate(), None);
    }
}
