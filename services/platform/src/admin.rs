//! The admin listener: health and metrics, nothing else, so it may be bound anywhere.

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::info::Info;

use crate::bus::topics;
use crate::ctx::{Metrics, Status};

#[derive(Debug, Clone)]
struct Admin {
    metrics: Metrics,
    status: Status,
}

/// Routes `/metrics`, `/livez` and `/readyz`.
pub fn router(metrics: Metrics, status: Status) -> Router {
    Router::new()
        .route("/metrics", get(metrics_text))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(Admin { metrics, status })
}

/// Registers what this binary is, as a gauge that is always 1.
pub fn build_info(metrics: &Metrics) {
    let labels = vec![("version", env!("CARGO_PKG_VERSION").to_owned()), ("librdkafka", topics::client_version())];
    metrics.with(|registry| registry.register("build", "Version of this process", Info::new(labels)));
}

async fn metrics_text(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    let mut text = String::new();
    if admin.metrics.with(|registry| encode(&mut text, registry)).is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    // Exemplars exist only in OpenMetrics, which a scraper asks for by name.
    let open =
        headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).is_some_and(|v| v.contains("application/openmetrics-text"));
    let kind = if open {
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    } else {
        "text/plain; version=0.0.4; charset=utf-8"
    };
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// Answers 200 while every part works; `?verbose` lists the parts with their reasons.
async fn ready(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Response {
    let parts = admin.status.parts();
    let works = !parts.is_empty() && parts.iter().all(|(_, state)| state.is_ok());
    let code = if works { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if query.as_deref() != Some("verbose") && works {
        return (code, "ok\n").into_response();
    }
    let lines: String = parts
        .iter()
        .map(|(name, state)| match state {
            Ok(()) => format!("[+] {name} ok\n"),
            Err(reason) => format!("[-] {name}: {reason}\n"),
        })
        .collect();
    (code, lines).into_response()
}
