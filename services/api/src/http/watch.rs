//! REST: an order's versions as server-sent events (WHATWG HTML, section 9.2).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::Request;
use http::request::Parts;
use minishop_contracts::orders::v1::{Order, WatchOrderRequest};
use minishop_contracts::query;
use minishop_core::refusal::Refusal;
use tokio::time::timeout;

use super::request::PathId;
use super::{answer, entry, sse};
use crate::app::App;
use crate::orders::Watch;
use crate::protocol::Protocol;
use crate::{fields, orders, refusals};

const LAST_EVENT_ID: &str = "last-event-id";

/// Streams the versions of an order. Answers 204 if the caller has seen the final one: then browsers do not reconnect.
pub async fn events(State(app): State<Arc<App>>, PathId(id): PathId, request: Request<Body>) -> Response {
    let (parts, _) = request.into_parts();
    let call = app.call(Protocol::Rest, "GET /orders/{order_id}/events", &parts.headers);
    let work = async {
        entry::check(&app, &parts)?;
        orders::watch(&app, &call, watched(&parts, id)?).await
    };
    match call.run(work).await {
        Ok(Some(watch)) => answer::events(&call, sse::body(watch, next)),
        Ok(None) => answer::nothing(&call),
        Err(refusal) => answer::refusal(&call, &refusal),
    }
}

/// Reads the path and the resume token. The header overrides the query: browsers that reconnect set the header and repeat the
/// query. Polyfills that cannot set it send `lastEventId` in the query.
fn watched(parts: &Parts, order_id: String) -> Result<WatchOrderRequest, Refusal> {
    let (of_query, found) = match query::resume_token(parts.uri.query().unwrap_or_default()) {
        Ok(token) => (token, Vec::new()),
        Err(found) => (None, found),
    };
    let request = fields::checked(Protocol::Rest, WatchOrderRequest { order_id, resume_token: 0 }, found)?;
    let mut headers = parts.headers.get_all(LAST_EVENT_ID).iter();
    let token = match (headers.next(), headers.next()) {
        (None, _) => of_query.as_deref().map(str::as_bytes),
        (Some(id), None) => Some(id.as_bytes()),
        _ => return Err(refusals::resume_token_invalid(Protocol::Rest)),
    };
    let token = token.map_or(Some(0), version).ok_or_else(|| refusals::resume_token_invalid(Protocol::Rest))?;
    Ok(WatchOrderRequest { resume_token: token, ..request })
}

/// Parses a version; an empty token is 0, the beginning.
fn version(token: &[u8]) -> Option<i32> {
    if token.is_empty() {
        return Some(0);
    }
    let text = std::str::from_utf8(token).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok()
}

/// Waits for the next version; a comment fills silence. A drain ends the stream, and the client reconnects elsewhere.
async fn next(mut watch: Watch) -> Option<(Bytes, Watch)> {
    let bytes = match timeout(sse::SILENCE, watch.next()).await {
        Err(_) => sse::comment(),
        Ok(Some(Ok(order))) => event(&order),
        Ok(Some(Err(_)) | None) => return None,
    };
    Some((bytes, watch))
}

fn event(order: &Order) -> Bytes {
    sse::event("order", Some(order.version), order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_a_version_in_digits() {
        for (token, read) in [("", Some(0)), ("0", Some(0)), ("2", Some(2)), ("007", Some(7)), ("2147483647", Some(i32::MAX))] {
            assert_eq!(version(token.as_bytes()), read, "{token}");
        }
        for bad in ["-1", "abc", "1.5", "99999999999999999999999", "+1", " 1", "1 ", "2147483648", "\u{661}"] {
            assert_eq!(version(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(version(b"\xff"), None);
    }

    #[test]
    fn an_event_is_one_line_of_data_whatever_is_in_the_order() {
        let order = Order { version: 2, customer_id: "a\u{2028}b\"\n\r".into(), ..Order::default() };
        let text = String::from_utf8(event(&order).to_vec()).unwrap();
        let lines: Vec<_> = text.split('\n').collect();
        assert_eq!((lines.len(), lines[0], lines[1]), (5, "id: 2", "event: order"));
        assert!(lines[2].starts_with("data: {") && !text.contains('\r'));
        assert_eq!((lines[3], lines[4]), ("", ""));
    }
}
