//! Handles by calling the team's own endpoint: the envelope is posted with a Standard Webhooks signature, at least once.
//!
//! 2xx is success; 409, 410 and 422 refuse the order for good; any other answer, or none, is retried later.

mod breaker;
mod signature;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use http::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use minishop_contracts::headers::http as names;
use minishop_core::clock::Clock;
use minishop_platform::config::Webhook as Settings;
use minishop_platform::ctx::{Labels, Metrics};
use minishop_platform::outbound::{Answer, Outbound};
use minishop_store::Outage;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Delivery, Endpoint, Handled, Handler};
use breaker::{Breaker, BreakerOutage, Permit};
use signature::Signer;

/// The longest `Retry-After` of the endpoint that is followed.
const LONGEST_RETRY_AFTER: Duration = Duration::from_mins(5);
/// How much longer than its own timeout a call may take before the lot cuts it off.
const BEYOND_TIMEOUT: Duration = Duration::from_secs(5);

/// Calls one endpoint.
#[derive(Debug)]
pub struct Webhook {
    outbound: Outbound,
    url: Uri,
    signer: Signer,
    concurrency: usize,
    timeout: Duration,
    clock: Arc<dyn Clock>,
    breaker: Mutex<Breaker>,
    /// The outage as last published.
    published: Mutex<Option<BreakerOutage>>,
    outage: watch::Sender<Option<Outage>>,
    metrics: WebhookMetrics,
}

#[derive(Debug, Clone)]
struct WebhookMetrics {
    calls: Family<Labels<1>, Histogram, fn() -> Histogram>,
    paused: Gauge,
}

impl WebhookMetrics {
    fn register(metrics: &Metrics) -> Self {
        let buckets: fn() -> Histogram = || Histogram::new(exponential_buckets(0.005, 2.0, 13));
        Self {
            calls: metrics.register_as(
                "webhook_call_duration_seconds",
                "Duration of a call to the endpoint, by outcome",
                Family::new_with_constructor(buckets),
            ),
            paused: metrics.register("webhook_paused", "1 while calls are paused because the endpoint is down"),
        }
    }
}

impl Webhook {
    /// Prepares the calls.
    pub fn new(settings: &Settings, clock: Arc<dyn Clock>, metrics: &Metrics) -> Self {
        Self {
            outbound: Outbound::new(settings.timeout, settings.targets),
            url: settings.url.clone(),
            signer: Signer::new(settings.key.clone()),
            concurrency: settings.concurrency,
            timeout: settings.timeout,
            clock,
            breaker: Mutex::default(),
            published: Mutex::default(),
            outage: watch::Sender::new(None),
            metrics: WebhookMetrics::register(metrics),
        }
    }

    fn headers(&self, delivery: &Delivery) -> HeaderMap {
        let id = delivery.event_id.to_string();
        let at = self.clock.now().timestamp();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("minishop/", env!("CARGO_PKG_VERSION"))));
        headers.insert(signature::TIMESTAMP, HeaderValue::from(at));
        let texts = [
            (signature::ID, id.as_str()),
            (signature::SIGNATURE, &self.signer.sign(&id, at, &delivery.envelope)),
            // The endpoint's idempotency key: equal in every attempt at this event.
            (names::IDEMPOTENCY_KEY_STANDARD, id.as_str()),
            (names::CORRELATION_ID, delivery.correlation_id.as_str()),
            (names::TRACEPARENT, delivery.trace.traceparent()),
            (names::TRACESTATE, delivery.trace.tracestate().unwrap_or_default()),
        ];
        for (name, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            // Ids and traces were validated on input; one that does not fit in a header is left out.
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        headers
    }

    /// Parses the endpoint's `Retry-After`: seconds, or a date (RFC 9110, 10.2.3). Anything else, or a past date, counts as
    /// absent.
    fn retry_after(&self, answer: &Answer) -> Option<Duration> {
        let text = answer.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        let retry_after = match text.parse::<u64>() {
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(self.clock.now().into()).ok()?,
        };
        Some(retry_after.min(LONGEST_RETRY_AFTER))
    }

    fn judge(&self, answer: &Answer) -> Handled {
        let message = format!("the endpoint answered {}", answer.status.as_u16());
        match answer.status {
            status if status.is_success() => Handled::Done,
            StatusCode::CONFLICT | StatusCode::GONE | StatusCode::UNPROCESSABLE_ENTITY => Handled::Refused { message },
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Handled::Failed { message, retry_after: self.retry_after(answer) }
            }
            _ => Handled::Failed { message, retry_after: None },
        }
    }

    /// Informs the breaker; returns the call's result, `Paused` for a failure that does not count as an attempt.
    fn note(&self, permit: Permit<'_>, delivery: &Delivery, handled: Handled) -> Handled {
        let failed = if let Handled::Failed { message, .. } = &handled { Some(message.as_str()) } else { None };
        let (has_failed, counts) = (failed.is_some(), permit.note(&delivery.record_key, failed, Instant::now()));
        self.publish_outage();
        if has_failed && !counts { Handled::Paused } else { handled }
    }

    /// Publishes the outage if it changed: log, metric and `outage`.
    fn publish_outage(&self) {
        let mut published = self.published.lock().expect("no holder panics");
        let now = breaker::lock(&self.breaker).outage_now();
        if *published == now {
            return;
        }
        match (&*published, &now) {
            (None, Some(outage)) => tracing::error!(
                server.address = self.url.host(),
                "the webhook endpoint is down: {}; calls pause and events use up no attempts",
                outage.why
            ),
            (Some(_), None) => tracing::info!(server.address = self.url.host(), "the webhook endpoint answers again"),
            _ => {}
        }
        self.metrics.paused.set(i64::from(now.is_some()));
        self.outage.send_replace(now.as_ref().map(|outage| self.dated(outage)));
        *published = now;
    }

    /// Converts an outage's times to the wall clock.
    fn dated(&self, outage: &BreakerOutage) -> Outage {
        let (clock, instant) = (self.clock.now(), Instant::now());
        let since = TimeDelta::from_std(instant.saturating_duration_since(outage.since)).unwrap_or_default();
        let wait = TimeDelta::from_std(outage.probe_at.saturating_duration_since(instant)).unwrap_or_default();
        Outage { since: clock - since, why: outage.why.clone(), next_probe_at: clock + wait }
    }
}

#[async_trait]
impl Handler for Webhook {
    async fn handle(&self, delivery: &Delivery) -> Handled {
        let Some(permit) = Permit::ask(&self.breaker, Instant::now()) else { return Handled::Paused };
        let started = Instant::now();
        let handled = match self.outbound.post(&self.url, self.headers(delivery), delivery.envelope.clone()).await {
            Ok(answer) => self.judge(&answer),
            Err(error) => Handled::Failed { message: format!("the endpoint could not be called: {error}"), retry_after: None },
        };
        let outcome = match &handled {
            Handled::Done => "done",
            Handled::Refused { .. } => "refused",
            Handled::Failed { .. } | Handled::Paused => "failed",
        };
        self.metrics.calls.get_or_create(&[("outcome", outcome)]).observe(started.elapsed().as_secs_f64());
        self.note(permit, delivery, handled)
    }

    fn paused(&self) -> Option<Duration> {
        let paused = breaker::lock(&self.breaker).paused(Instant::now());
        self.publish_outage();
        paused
    }

    fn concurrency(&self) -> usize {
        // During an outage only probes are needed: what is claimed beyond them would be handed back.
        breaker::lock(&self.breaker).room().map_or(self.concurrency, |room| room.min(self.concurrency))
    }

    fn endpoint(&self) -> Option<Endpoint> {
        let authority = self.url.authority().map_or("", http::uri::Authority::as_str);
        let name = format!("{}://{authority}", self.url.scheme_str().unwrap_or("http"));
        Some(Endpoint { name, outage: self.outage.subscribe() })
    }

    fn longest(&self) -> Duration {
        // The call's own timeout comes first, so that the breaker learns of it.
        self.timeout + BEYOND_TIMEOUT
    }
}
