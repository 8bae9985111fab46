//! The checks before a request's content.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use minishop_core::refusal::Refusal;
use tokio::time::timeout;

use crate::app::App;
use crate::{host, refusals};

/// The longest body, in bytes.
pub const BODY_BYTES: usize = 262_144;
/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(30);
/// The longest path with its query, in bytes.
const URI_BYTES: usize = 8192;

/// Checks sizes and host.
pub fn check(app: &App, parts: &Parts) -> Result<(), Refusal> {
    sizes(parts)?;
    host(app, parts)
}

/// Checks the length of the URI, and of the body by its `content-length`.
pub fn sizes(parts: &Parts) -> Result<(), Refusal> {
    let uri = parts.uri.path_and_query().map_or(0, |path| path.as_str().len());
    if uri > URI_BYTES {
        return Err(refusals::uri_too_long(URI_BYTES));
    }
    let length = parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > BODY_BYTES as u64) {
        return Err(refusals::body_too_large(BODY_BYTES));
    }
    Ok(())
}

fn host(app: &App, parts: &Parts) -> Result<(), Refusal> {
    if host::is_ours(app.config.http_addr, &parts.headers, &parts.uri) {
        return Ok(());
    }
    Err(refusals::host_not_allowed())
}

/// Checks that the headers announce JSON in UTF-8, not encoded.
pub fn media_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let json = match (types.next(), types.next()) {
        (Some(value), None) => value.to_str().is_ok_and(is_json),
        _ => false,
    };
    if json && !headers.contains_key(CONTENT_ENCODING) {
        return Ok(());
    }
    Err(refusals::media_type_unsupported())
}

fn is_json(value: &str) -> bool {
    let mut parts = value.split(';').map(str::trim);
    let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("application/json"));
    named
        && parts.filter(|part| !part.is_empty()).all(|part| match part.split_once('=') {
            Some((name, charset)) if name.eq_ignore_ascii_case("charset") => {
                charset.trim_matches('"').eq_ignore_ascii_case("utf-8")
            }
            _ => true,
        })
}

/// Reads a body of at most `BODY_BYTES` within `BODY_TIME`.
pub async fn body(body: Body) -> Result<Bytes, Refusal> {
    match timeout(BODY_TIME, Limited::new(body, BODY_BYTES).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(refusals::body_too_large(BODY_BYTES)),
        // The client went away or broke its own framing: nobody reads this answer.
        Ok(Err(_)) => Err(refusals::body_incomplete()),
        Err(_) => Err(refusals::body_late(BODY_TIME)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_in_utf_8_is_json() {
        for good in ["application/json", "APPLICATION/JSON; charset=\"UTF-8\"", "application/json;charset=utf-8"] {
            assert!(is_json(good), "{good}");
        }
        for bad in ["", "text/plain", "application/xml", "application/json; charset=latin1", "application/jsonp"] {
            assert!(!is_json(bad), "{bad}");
        }
    }
}
