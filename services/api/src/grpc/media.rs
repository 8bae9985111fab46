//! The gRPC listener's filter: content types, and for web pages the host name.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;

use crate::app::App;
use crate::{host, refusals};

/// Refuses requests that are neither gRPC nor gRPC-web with protobuf messages, and gRPC-web under a foreign host name.
pub async fn only_grpc(State(app): State<Arc<App>>, request: Request<Body>, next: Next) -> Response {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).and_then(kind);
    if kind == Some(Kind::Web) && !host::is_ours(app.config.grpc_addr, request.headers(), request.uri()) {
        // Only web pages can rebind a foreign name to this listener, and they speak only gRPC-web.
        return (StatusCode::MISDIRECTED_REQUEST, format!("{}\n", refusals::host_not_allowed().detail)).into_response();
    }
    if kind.is_some() {
        return next.run(request).await;
    }
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, "This listener speaks gRPC and gRPC-web with protobuf messages.\n").into_response()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Web,
}

fn kind(value: &str) -> Option<Kind> {
    let name = value.split(';').next().unwrap_or_default().trim();
    let rest = name.get(..16).filter(|start| start.eq_ignore_ascii_case("application/grpc")).map(|_| &name[16..])?;
    let is_one_of = |known: &[&str]| known.iter().any(|known| rest.eq_ignore_ascii_case(known));
    if is_one_of(&["", "+proto"]) {
        return Some(Kind::Plain);
    }
    is_one_of(&["-web", "-web+proto", "-web-text", "-web-text+proto"]).then_some(Kind::Web)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protobuf_over_grpc_and_grpc_web_is_taken_and_nothing_else() {
        for good in ["application/grpc", "application/grpc+proto", "Application/gRPC; x=y"] {
            assert_eq!(kind(good), Some(Kind::Plain), "{good}");
        }
        for good in ["application/grpc-web", "application/grpc-web-text", "application/gRPC-Web+proto"] {
            assert_eq!(kind(good), Some(Kind::Web), "{good}");
        }
        for bad in ["", "text/plain", "application/json", "application/grpc+json", "application/grpcx"] {
            assert_eq!(kind(bad), None, "{bad}");
        }
    }
}
