//! The content types of the gRPC listener.

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;

/// Refuses what is neither gRPC nor gRPC-web with protobuf messages.
pub async fn only_grpc(request: Request<Body>, next: Next) -> Response {
    let value = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if value.is_some_and(is_grpc) {
        return next.run(request).await;
    }
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, "This listener speaks gRPC and gRPC-web with protobuf messages.\n").into_response()
}

fn is_grpc(value: &str) -> bool {
    let name = value.split(';').next().unwrap_or_default().trim();
    let Some(kind) = name.get(..16).filter(|start| start.eq_ignore_ascii_case("application/grpc")).map(|_| &name[16..]) else {
        return false;
    };
    ["", "+proto", "-web", "-web+proto", "-web-text", "-web-text+proto"].iter().any(|known| kind.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protobuf_over_grpc_and_grpc_web_is_taken_and_nothing_else() {
        for good in ["application/grpc", "application/grpc+proto", "application/grpc-web-text", "Application/gRPC; x=y"] {
            assert!(is_grpc(good), "{good}");
        }
        for bad in ["", "text/plain", "application/json", "application/grpc+json", "application/grpcx"] {
            assert!(!is_grpc(bad), "{bad}");
        }
    }
}
