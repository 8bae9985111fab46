//! Server-sent events (WHATWG HTML, section 9.2).

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use minishop_contracts::json;
use serde::Serialize;

/// The longest time without data: proxies close connections that stay silent.
pub const SILENCE: Duration = Duration::from_secs(15);

/// Encodes an event whose data is a message on one line.
pub fn event(name: &str, id: Option<i32>, message: &impl Serialize) -> Bytes {
    let mut event = id.map_or_else(Vec::new, |id| format!("id: {id}\n").into_bytes());
    event.extend_from_slice(format!("event: {name}\ndata: ").as_bytes());
    json::append(&mut event, message);
    event.extend_from_slice(b"\n\n");
    event.into()
}

/// Encodes a comment, which keeps the stream open.
pub fn comment() -> Bytes {
    Bytes::from_static(b": nothing new\n\n")
}

/// Streams what `next` returns, until it returns `None`.
pub fn body<S: Send + 'static, F: Future<Output = Option<(Bytes, S)>> + Send + 'static>(
    source: S,
    next: impl FnMut(S) -> F + Send + 'static,
) -> Body {
    Body::from_stream(stream::unfold(source, next).map(Ok::<_, Infallible>))
}
