//! The admin listener: health and metrics only, so it may be bound anywhere.

mod prometheus;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use minishop_bus::topics;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::info::Info;

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

/// Registers the build's versions, as a gauge that is always 1.
pub fn build_info(metrics: &Metrics) {
    let labels = vec![("version", env!("CARGO_PKG_VERSION").to_owned()), ("librdkafka", topics::client_version())];
    metrics.with(|registry| registry.register("build", "Version of this process", Info::new(labels)));
}

async fn metrics_text(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    let mut text = String::new();
    if admin.metrics.with(|registry| encode(&mut text, registry)).is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let accept: Vec<_> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let (kind, text) = if wants_open_metrics(&accept.join(",")) {
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", text)
    } else {
        ("text/plain; version=0.0.4; charset=utf-8", prometheus::from_open_metrics(&text))
    };
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// Returns whether a scraper prefers `OpenMetrics`, the only format with exemplars: it names it, at no lower weight than text.
fn wants_open_metrics(accept: &str) -> bool {
    let quality = |names: &[&str]| {
        let ranges = accept.split(',').map(|range| range.split(';').map(str::trim).collect::<Vec<_>>());
        let named = ranges.filter(|parts| names.iter().any(|name| parts[0].eq_ignore_ascii_case(name)));
        let weight = |parts: &Vec<&str>| {
            let q = parts.iter().skip(1).find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            // A missing or invalid weight counts as 1 (RFC 9110, section 12.4.2).
            q.map_or(1.0, |q| q.parse().unwrap_or(1.0_f64))
        };
        named.map(|parts| weight(&parts)).fold(0.0, f64::max)
    };
    let open = quality(&["application/openmetrics-text"]);
    open > 0.0 && open >= quality(&["text/plain"])
}

/// Responds 200 while every part works. `?verbose` lists parts with reasons, and notes, which do not affect readiness.
async fn ready(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Response {
    let parts = admin.status.parts();
    let works = !parts.is_empty() && parts.iter().all(|(_, state)| state.is_ok());
    let code = if works { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if query.as_deref() != Some("verbose") && works {
        return (code, "ok\n").into_response();
    }
    let states = parts.iter().map(|(name, state)| match state {
        Ok(()) => format!("[+] {name} ok\n"),
        Err(reason) => format!("[-] {name}: {reason}\n"),
    });
    let notes = admin.status.notes().into_iter().map(|(name, reason)| format!("[!] {name}: {reason}\n"));
    let lines: String = states.chain(notes).collect();
    (code, lines).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use http_body_util::BodyExt as _;
    use prometheus_client::metrics::counter::Counter;
    use tower::ServiceExt as _;

    async fn get(router: &Router, path: &str, accept: &str) -> (u16, String, String) {
        let request = http::Request::get(path).header("accept", accept).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let kind = head.headers.get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
        let body = body.collect().await.unwrap().to_bytes();
        (head.status.as_u16(), kind.unwrap_or_default(), String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn metrics_come_in_the_form_that_their_content_type_names() {
        let metrics = Metrics::default();
        metrics.with(|registry| registry.register("accepts", "Accepts", Counter::<u64>::default()));
        let router = router(metrics, Status::default());
        let (_, kind, text) = get(&router, "/metrics", "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2").await;
        assert!(kind.starts_with("application/openmetrics-text; version=1.0.0"));
        assert!(text.contains("# TYPE minishop_accepts counter\n") && text.ends_with("# EOF\n"), "{text}");
        let others = [
            "text/plain",
            "*/*",
            "",
            "application/openmetrics-text;version=1.0.0;q=0",
            "application/openmetrics-text; q=0.000, */*",
            "application/openmetrics-text;q=0.2,text/plain;q=0.5",
        ];
        for accept in others {
            let (_, kind, text) = get(&router, "/metrics", accept).await;
            assert!(kind.starts_with("text/plain; version=0.0.4"), "{accept}");
            assert!(text.contains("# TYPE minishop_accepts_total counter\n") && !text.contains("# EOF"), "{text}");
        }
    }

    #[tokio::test]
    async fn a_note_is_told_and_does_not_withdraw_readiness() {
        let status = Status::default();
        let router = router(Metrics::default(), status.clone());
        assert_eq!(get(&router, "/readyz", "").await.0, 503, "nothing works yet");
        status.set("store", Ok(()));
        status.note("kafka", Some("does not answer".to_owned()));
        let (code, _, text) = get(&router, "/readyz?verbose", "").await;
        assert_eq!((code, text.as_str()), (200, "[+] store ok\n[!] kafka: does not answer\n"));
        status.note("kafka", None);
        status.set("store", Err("away".to_owned()));
        let (code, _, text) = get(&router, "/readyz", "").await;
        assert_eq!((code, text.as_str()), (503, "[-] store: away\n"));
    }
}
