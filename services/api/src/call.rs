//! A call: its client, protocol, correlation id, idempotency key, trace and deadline.

mod key;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use minishop_contracts::headers::http as names;
use minishop_core::idempotency::IdempotencyKey;
use minishop_core::ids::{ClientId, CorrelationId};
use minishop_core::refusal::Refusal;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{Instrument as _, Span, debug, field, info_span};

use crate::app::App;
use crate::protocol::Protocol;
use minishop_platform::telemetry::propagation::TraceContext;

/// Maximum time from a call's arrival to its deadline.
pub const LONGEST: Duration = Duration::from_mins(1);

/// A call without its message.
#[derive(Debug)]
pub struct Call {
    /// The protocol.
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
    /// When the call arrived.
    pub received: Instant,
    /// When the caller stops waiting; at most [`LONGEST`] after `received`.
    pub deadline: Instant,
}

impl Call {
    /// Reads headers or gRPC metadata. `operation` is the route or method, as named in traces.
    pub fn new(app: &App, protocol: Protocol, operation: &'static str, headers: &HeaderMap) -> Self {
        let received = Instant::now();
        if headers.contains_key(AUTHORIZATION) {
            app.credentials
                .call_once(|| tracing::warn!("a request carries credentials, but authentication is off; all are anonymous"));
        }
        let sent = single(headers, names::CORRELATION_ID).and_then(CorrelationId::parse);
        let correlation_id = sent.unwrap_or_else(|| CorrelationId::new(app.clock.now(), app.ids.random()));
        let span = info_span!(
            "api.call",
            otel.name = operation,
            otel.kind = "server",
            correlation_id = correlation_id.as_str(),
            trace_id = field::Empty
        );
        let trace = match parent(headers) {
            Some(parent) => parent.continue_in(&span, app.ids.as_ref()),
            None => TraceContext::begin_in(&span, app.ids.as_ref()),
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
                Err(refusal) => debug!(code = refusal.code.as_str(), "refused"),
            }
            outcome
        };
        work.instrument(self.span.clone()).await
    }

    /// Sets and returns the idempotency key: the caller's, or a new one if none was sent and none is required.
    pub fn take_key(&mut self, app: &App, headers: &HeaderMap) -> Result<IdempotencyKey, Refusal> {
        let key = key::read(headers, app.config.require_idempotency_key)?
            .unwrap_or_else(|| IdempotencyKey::generate(app.clock.as_ref(), app.ids.as_ref()));
        self.key = Some(key.clone());
        Ok(key)
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
