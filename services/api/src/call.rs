//! A call: who asks, over which protocol, under which correlation id and key, and until when an answer is of use.

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
use minishop_platform::telemetry::propagation::TraceContext;

/// The longest that any call may take.
pub const LONGEST: Duration = Duration::from_mins(1);

/// The protocol of a call. It decides how fields are spelt and answers are dressed, never what is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// JSON over HTTP.
    Rest,
    /// gRPC, or gRPC-web.
    Grpc,
}

impl Protocol {
    /// Spells the protocol as a metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Grpc => "grpc",
        }
    }
}

/// What is known of a call besides its message.
#[derive(Debug)]
pub struct Call {
    /// The protocol.
    pub protocol: Protocol,
    /// The caller.
    pub client: ClientId,
    /// The caller's correlation id, or a new one where the caller's breaks the rule.
    pub correlation_id: CorrelationId,
    /// The key in use; echoed with every answer, refusals too, so that an unknown outcome can be retried.
    pub key: Option<IdempotencyKey>,
    /// What log lines and traces tell about this call; its work runs in it.
    pub span: Span,
    /// This call's place in the caller's trace, or in a new one: what is handed on with the order.
    pub trace: TraceContext,
    /// When the call came in.
    pub received: Instant,
    /// When an answer is of no more use.
    pub deadline: Instant,
}

impl Call {
    /// Reads headers or metadata. `operation` names the route or the method in traces.
    pub fn new(app: &App, protocol: Protocol, operation: &'static str, headers: &HeaderMap) -> Self {
        let received = Instant::now();
        if headers.contains_key(AUTHORIZATION) {
            app.credentials
                .call_once(|| tracing::warn!("a request has credentials, but authentication is off: all are anonymous"));
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

    /// Does the work of the call: its log lines carry the call's ids, and its spans lie in the caller's trace.
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

    /// Takes the caller's key into use, or a new one when there is none and none is required.
    pub fn take_key(&mut self, app: &App, headers: &HeaderMap) -> Result<IdempotencyKey, Refusal> {
        let key = key::read(headers, app.config.require_idempotency_key)?
            .unwrap_or_else(|| IdempotencyKey::generate(app.clock.as_ref(), app.ids.as_ref()));
        self.key = Some(key.clone());
        Ok(key)
    }
}

/// Reads the caller's place in its trace: a parent that is given twice or breaks the rules is not taken.
fn parent(headers: &HeaderMap) -> Option<TraceContext> {
    let state: Option<Vec<_>> = headers.get_all(names::TRACESTATE).iter().map(|value| value.to_str().ok()).collect();
    let state = state.map(|values| values.join(",")).filter(|state| !state.is_empty());
    TraceContext::parse(single(headers, names::TRACEPARENT)?, state.as_deref())
}

/// Reads a header that stands there once and is ASCII.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}
