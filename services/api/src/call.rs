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
    /// This call's span in the caller's trace, or in a new one.
    pub trace: TraceContext,
    /// When the call came in.
    pub received: Instant,
    /// When an answer is of no more use.
    pub deadline: Instant,
}

impl Call {
    /// Reads headers or metadata.
    pub fn new(app: &App, protocol: Protocol, headers: &HeaderMap) -> Self {
        let received = Instant::now();
        if headers.contains_key(AUTHORIZATION) {
            app.credentials
                .call_once(|| tracing::warn!("a request has credentials, but authentication is off: all are anonymous"));
        }
        let sent = single(headers, names::CORRELATION_ID).and_then(CorrelationId::parse);
        Self {
            protocol,
            client: ClientId::anonymous(),
            correlation_id: sent.unwrap_or_else(|| CorrelationId::new(app.clock.now(), app.ids.random())),
            key: None,
            trace: trace(app, headers),
            received,
            deadline: received + LONGEST,
        }
    }

    /// Takes the caller's key into use, or a new one when there is none and none is required.
    pub fn take_key(&mut self, app: &App, headers: &HeaderMap) -> Result<IdempotencyKey, Refusal> {
        let key = key::read(headers, app.config.require_idempotency_key)?
            .unwrap_or_else(|| IdempotencyKey::generate(app.clock.as_ref(), app.ids.as_ref()));
        self.key = Some(key.clone());
        Ok(key)
    }
}

/// Goes on with the caller's trace, or begins one: a parent that is given twice or breaks the rules is not taken.
fn trace(app: &App, headers: &HeaderMap) -> TraceContext {
    let ids = app.ids.as_ref();
    let state: Option<Vec<_>> = headers.get_all(names::TRACESTATE).iter().map(|value| value.to_str().ok()).collect();
    let state = state.map(|values| values.join(",")).filter(|state| !state.is_empty());
    single(headers, names::TRACEPARENT)
        .and_then(|parent| TraceContext::parse(parent, state.as_deref()))
        .map_or_else(|| TraceContext::new(ids), |parent| parent.child(ids))
}

/// Reads a header that stands there once and is ASCII.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}
