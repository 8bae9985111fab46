//! Follows a stream of server-sent events; after a lost connection, reconnects after the last event seen.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;

use super::client::{Client, Failure};

/// A server that sends nothing for this long, not even a comment, is gone.
const SILENCE: Duration = Duration::from_secs(45);
/// How long to reconnect before giving up.
const PATIENCE: Duration = Duration::from_mins(1);
const AGAIN: Duration = Duration::from_secs(1);

/// Passes each event after `last` to `handle`, until that returns `false` or nothing can follow.
pub async fn follow(client: &Client, path: &str, mut last: Option<String>, mut handle: impl FnMut(&Value) -> bool) -> ExitCode {
    let mut away_since = Instant::now();
    loop {
        match client.events(path, last.as_deref()).await {
            // The final event was seen.
            Ok(None) => return ExitCode::SUCCESS,
            Ok(Some(body)) => {
                if follow_one(body, &mut last, &mut handle).await {
                    return ExitCode::SUCCESS;
                }
                away_since = Instant::now();
            }
            Err(failure) if away_since.elapsed() > PATIENCE || !passes(&failure) => {
                return failure.print();
            }
            Err(_) => {}
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Returns whether a retry may soon succeed.
fn passes(failure: &Failure) -> bool {
    match failure {
        Failure::Unreachable(_) => true,
        Failure::Refused(status, _) => matches!(*status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS),
    }
}

/// Passes the events of one connection to `handle`. Returns whether `handle` returned `false`.
async fn follow_one(mut body: Incoming, last: &mut Option<String>, handle: &mut impl FnMut(&Value) -> bool) -> bool {
    let mut text = Vec::new();
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(SILENCE, body.frame()).await {
        text.extend_from_slice(&frame.into_data().unwrap_or_default());
        while let Some(at) = text.windows(2).position(|two| two == b"\n\n") {
            let block: Vec<u8> = text.drain(..at + 2).collect();
            let Some((id, data)) = event(&String::from_utf8_lossy(&block)) else { continue };
            if id.is_some() {
                *last = id;
            }
            if !handle(&data) {
                return true;
            }
        }
    }
    false
}

/// Parses one event: its id, if it has one, and its data; `None` for a comment.
fn event(block: &str) -> Option<(Option<String>, Value)> {
    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    Some((field("id").map(str::to_owned), serde_json::from_str(field("data")?).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_has_data_and_perhaps_an_id_and_a_comment_has_neither() {
        let block = "id: 2\nevent: order\ndata: {\"version\":2,\"status\":\"processed\"}\n\n";
        assert_eq!(event(block), Some((Some("2".to_owned()), json!({"version": 2, "status": "processed"}))));
        assert_eq!(event("event: status\ndata: {}\n\n"), Some((None, json!({}))));
        assert_eq!(event(": nothing new\n\n"), None);
    }
}
