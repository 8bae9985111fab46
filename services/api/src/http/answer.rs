//! REST answers: canonical JSON, problem details (RFC 9457), and the headers that every answer has.

use axum::body::Body;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, LOCATION, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue, StatusCode};
use minishop_contracts::headers::http as names;
use minishop_contracts::json;
use minishop_contracts::orders::v1::CreateOrderResponse;
use minishop_core::refusal::{Code, Refusal};
use serde::Serialize;

use crate::call::Call;
use crate::reply;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

/// Answers with a message.
pub fn message<T: Serialize>(call: &Call, status: StatusCode, message: &T) -> Response {
    dressed(call, status, Some(JSON), json::to_vec(message).into())
}

/// Answers 201: the order is on disk.
pub fn created(call: &Call, reply: &CreateOrderResponse, replayed: bool) -> Response {
    let mut response = message(call, StatusCode::CREATED, reply);
    let headers = response.headers_mut();
    headers.insert(LOCATION, value(&format!("/orders/{}", reply.order_id)));
    if replayed {
        headers.insert(HeaderName::from_static(names::IDEMPOTENT_REPLAYED), HeaderValue::from_static("true"));
    }
    response
}

/// Answers with a stream of server-sent events.
pub fn events(call: &Call, events: Body) -> Response {
    let mut response = dressed(call, StatusCode::OK, Some(EVENTS), events);
    // Keeps proxies that buffer answers from delaying events.
    response.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// Answers 204: there are no more events.
pub fn nothing(call: &Call) -> Response {
    dressed(call, StatusCode::NO_CONTENT, None, Body::empty())
}

/// Answers with a problem document.
pub fn refusal(call: &Call, refusal: &Refusal) -> Response {
    let (_, status) = reply::statuses(refusal.code);
    let errors = refusal.violations.iter();
    let problem = Problem {
        r#type: format!("urn:minishop:problem:{}", refusal.code.as_str()),
        title: refusal.code.title(),
        status: status.as_u16(),
        detail: &refusal.detail,
        code: refusal.code.as_str(),
        errors: errors.map(|v| Error { field: &v.field, code: v.code.as_str(), message: &v.message }).collect(),
    };
    let mut response = dressed(call, status, Some(PROBLEM), json::to_vec(&problem).into());
    if let Some(wait) = refusal.retry_after {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if matches!(refusal.code, Code::BodyTooLarge | Code::RequestTimeout) {
        // The rest of the body is not read, so the connection cannot be reused.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

#[derive(Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Error<'a>>,
}

#[derive(Serialize)]
struct Error<'a> {
    field: &'a str,
    code: &'static str,
    message: &'a str,
}

fn dressed(call: &Call, status: StatusCode, media_type: Option<HeaderValue>, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.extend(media_type.map(|media_type| (CONTENT_TYPE, media_type)));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static(names::CORRELATION_ID), value(call.correlation_id.as_str()));
    if let Some(key) = &call.key {
        headers.insert(HeaderName::from_static(names::IDEMPOTENCY_KEY), value(key.as_str()));
    }
    response
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("ids and keys are printable ASCII")
}
