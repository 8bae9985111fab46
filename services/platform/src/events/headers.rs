//! The headers common to all events that MiniShop writes.

use bytes::Bytes;
use chrono::SecondsFormat;
use minishop_bus::HeaderWriter;
use minishop_contracts::headers::kafka as names;
use minishop_core::clock::Timestamp;
use minishop_store::Role;

use crate::telemetry::propagation::TraceContext;

/// The header values of an event.
pub(crate) struct EventHeaders<'a> {
    pub event_id: &'a str,
    pub order_id: &'a str,
    pub at: Timestamp,
    pub client: &'a str,
    pub correlation_id: &'a str,
    pub causation_id: &'a str,
    pub trace: Option<&'a TraceContext>,
}

/// Starts a header list with the constants of a role.
pub(crate) fn constant(role: Role) -> HeaderWriter {
    let mut headers = HeaderWriter::default();
    headers.put(names::CE_SPECVERSION, names::CE_SPECVERSION_1_0.as_bytes());
    let source: &[u8] = match role {
        Role::Api => b"/minishop/api",
        Role::Worker => b"/minishop/worker",
    };
    headers.put(names::CE_SOURCE, source);
    headers
}

impl EventHeaders<'_> {
    /// Appends these headers and encodes the list.
    pub(crate) fn finish(&self, mut headers: HeaderWriter) -> Bytes {
        // The same digits as `occurredAt` in the envelope.
        headers.put(names::CE_TIME, self.at.to_rfc3339_opts(SecondsFormat::AutoSi, true).as_bytes());
        headers.put(names::CE_ID, self.event_id.as_bytes());
        headers.put(names::CE_SUBJECT, self.order_id.as_bytes());
        headers.put(names::CE_CLIENT, self.client.as_bytes());
        headers.put(names::CORRELATION_ID, self.correlation_id.as_bytes());
        headers.put(names::CAUSATION_ID, self.causation_id.as_bytes());
        if let Some(trace) = self.trace {
            headers.put(names::TRACEPARENT, trace.traceparent().as_bytes());
            if let Some(state) = trace.tracestate() {
                headers.put(names::TRACESTATE, state.as_bytes());
            }
        }
        headers.finish()
    }
}
