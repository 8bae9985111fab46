//! A call: its client, protocol, correlation id, idempotency key, trace and deadline.

mod key;

use std::time::Duration;

use http::HeaderMap;
use minishop_contracts::headers::http as names;
use minishop_core::clock::Clock;
use minishop_core::idempotency::IdempotencyKey;
use minishop_core::ids::{ClientId, CorrelationId, Ids};
use minishop_core::refusal::Refusal;
use minishop_platform::telemetry::propagation::TraceContext;
use minishop_store::RequestedBy;
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument as _, Span, debug, field, info_span, warn};

use crate::protocol::Protocol;
use crate::refusals;

/// Maximum time from a call's arrival to its deadline.
pub const LONGEST: Duration = Duration::from_mins(1);

/// A call without its message.
#[derive(Debug)]
pub struct Call {
    pub protocol: Protocol,
    /// The caller. Always anonymous: there is no authentication.
    pub client: ClientId,
    /// The caller's correlation id, or a new one if that is absent or invalid.
    pub correlation_id: CorrelationId,
    /// The idempotency key. All answers echo it, refusals too, so that an unknown outcome can be retried.
    pub key: Option<IdempotencyKey>,
    /// The span in which the call's work runs. It carries the call's ids to logs and traces.
    pub span: Span,
    /// The call's trace context, in the caller's trace or a new one. The order's event carries it.
    pub trace: TraceContext,
    pub received: Instant,
    /// When the caller stops waiting; at most [`LONGEST`] after `received`.
    pub deadline: Instant,
}

impl Call {
    /// Reads headers or gRPC metadata. `operation` is the route or method, as named in traces.
    pub fn new(clock: &dyn Clock, ids: &dyn Ids, protocol: Protocol, operation: &'static str, headers: &HeaderMap) -> Self {
        let received = Instant::now();
        let sent = single(headers, names::CORRELATION_ID).and_then(CorrelationId::parse);
        let correlation_id = sent.unwrap_or_else(|| CorrelationId::new(clock.now(), ids.random()));
        let span = info_span!(
            "api.call",
            otel.name = operation,
            otel.kind = "server",
            correlation_id = correlation_id.as_str(),
            trace_id = field::Empty
        );
        let trace = match parent(headers) {
            Some(parent) => parent.continue_in(&span, ids),
            None => TraceContext::begin_in(&span, ids),
        };
        span.record("trace_id", trace.trace_id());
        Self {
            protocol,
            client: ClientId::anonymous(),
            correlation_id,
            key: None,
            span,
            trace,
            received,
            deadline: received + LONGEST,
        }
    }

    /// Runs `work` in the call's span: its log lines carry the call's ids, and its spans belong to the caller's trace.
    pub async fn run<T>(&self, work: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
        let work = async {
            let outcome = work.await;
            match &outcome {
                Ok(_) => debug!("answered"),
                Err(refusal) => debug!(error.code = refusal.code.as_str(), "refused"),
            }
            outcome
        };
        work.instrument(self.span.clone()).await
    }

    /// Waits for a read of the store until the deadline.
    pub async fn read<T>(&self, reading: impl Future<Output = minishop_store::Result<T>>) -> Result<T, Refusal> {
        match timeout_at(self.deadline, reading).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => {
                warn!(error = ?error, "a read failed");
                Err(refusals::store(&error))
            }
            Err(_) => Err(refusals::read_late()),
        }
    }

    /// Sets and returns the idempotency key: the caller's, or a new one if none was sent and none is `required`.
    pub fn take_key(
        &mut self,
        headers: &HeaderMap,
        required: bool,
        new: impl FnOnce() -> IdempotencyKey,
    ) -> Result<IdempotencyKey, Refusal> {
        let key = key::read(headers, required)?.unwrap_or_else(new);
        self.key = Some(key.clone());
        Ok(key)
    }

    /// Returns the requester of an operator's command, for the audit.
    pub fn requested_by(&self, operator: String, reason: String) -> RequestedBy {
        RequestedBy { client_id: self.client.clone(), operator, reason, correlation_id: self.correlation_id.clone() }
    }
}

/// Reads the caller's trace context; `None` if `traceparent` is absent, repeated or invalid.
fn parent(headers: &HeaderMap) -> Option<TraceContext> {
    let state: Option<Vec<_>> = headers.get_all(names::TRACESTATE).iter().map(|value| value.to_str().ok()).collect();
    let state = state.map(|values| values.join(",")).filter(|state| !state.is_empty());
    TraceContext::parse(single(headers, names::TRACEPARENT)?, state.as_deref())
}

/// Returns the value of a header that occurs exactly once and is visible ASCII.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}
