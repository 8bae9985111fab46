//! W3C Trace Context: parsed strictly and passed on with a new span id, so that one trace id covers an order's whole path.
//!
//! Source: <https://www.w3.org/TR/trace-context/>.

use minishop_core::hex;
use minishop_core::ids::Ids;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The trace that a request or a record belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: String,
    span_id: String,
    flags: u8,
    tracestate: Option<String>,
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
        Some(Self {
            trace_id: trace_id.to_owned(),
            span_id: span_id.to_owned(),
            flags: u8::from_str_radix(flags, 16).ok()? & 1,
            tracestate: tracestate.filter(|state| sound_state(state)).map(str::to_owned),
        })
    }

    /// Starts a new trace, marked as sampled.
    pub fn new(ids: &dyn Ids) -> Self {
        let random: Vec<u8> = ids.random().into_iter().chain(ids.random()).take(16).collect();
        let trace_id = hex::encode(&random);
        // All zeros is not a trace id; the chance is 2^-128, and the check costs nothing.
        let trace_id = if trace_id.bytes().all(|b| b == b'0') { "1".repeat(32) } else { trace_id };
        Self { trace_id, span_id: span_id(ids), flags: 1, tracestate: None }
    }

    /// Returns the context of a span that starts a trace: the span's own while spans are exported, else a new one.
    pub fn begin_in(span: &Span, ids: &dyn Ids) -> Self {
        current(span).unwrap_or_else(|| Self::new(ids))
    }

    /// Returns the context of a step below this one: same trace, new span.
    #[must_use]
    pub fn child(&self, ids: &dyn Ids) -> Self {
        Self { span_id: span_id(ids), ..self.clone() }
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
            Some(own) if own.trace_id == self.trace_id => Self { tracestate: self.tracestate.clone(), ..own },
            _ => self.child(ids),
        }
    }

    /// Returns the `traceparent` header.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace_id, self.span_id, self.flags)
    }

    /// Returns the `tracestate` header to pass on.
    pub fn tracestate(&self) -> Option<&str> {
        self.tracestate.as_deref()
    }

    /// Returns the trace id, 32 hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        &self.trace_id
    }
}

/// Makes a span the child of a received context. Does nothing while no spans are exported.
pub fn attach_parent(span: &Span, parent: &TraceContext) {
    let (Ok(trace), Ok(id)) = (TraceId::from_hex(&parent.trace_id), SpanId::from_hex(&parent.span_id)) else { return };
    let state = parent.tracestate.as_deref().and_then(|state| state.parse::<TraceState>().ok()).unwrap_or_default();
    let remote = SpanContext::new(trace, id, TraceFlags::new(parent.flags), true, state);
    // Fails if nothing is exported or the span has begun: the trace then continues without the span.
    let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(remote));
}

/// Returns the context of a span; `None` while no spans are exported.
fn current(span: &Span) -> Option<TraceContext> {
    let context = span.context();
    let own = context.span().span_context().clone();
    own.is_valid().then(|| TraceContext {
        trace_id: own.trace_id().to_string(),
        span_id: own.span_id().to_string(),
        flags: own.trace_flags().to_u8() & 1,
        tracestate: None,
    })
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
        assert!(TraceContext::parse(&child.traceparent(), None).is_some());
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
    fn a_long_tracestate_is_dropped_and_the_trace_kept() {
        let long = (0..33).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        let context = TraceContext::parse(GOOD, Some(&long)).expect("the trace is kept");
        assert_eq!(context.tracestate(), None);
    }
}
