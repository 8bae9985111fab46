//! `minishop order watch`: follows an order, and comes again behind what it has seen when the connection is lost.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;

use super::client::{Client, Failure, encoded};
use crate::output::{self, Output};

/// A server that sends nothing for so long, not even a comment, is gone.
const SILENCE: Duration = Duration::from_secs(45);
/// How long a server may be away before the watch is given up.
const PATIENCE: Duration = Duration::from_mins(1);
const AGAIN: Duration = Duration::from_secs(1);

/// Prints each version of an order behind `seen` until its status is final.
pub async fn follow(client: &Client, id: &str, seen: Option<u32>, output: Output) -> ExitCode {
    let path = format!("/orders/{}/events", encoded(id));
    let mut seen = seen.map(|version| version.to_string());
    let mut away_since = Instant::now();
    loop {
        match client.events(&path, seen.as_deref()).await {
            // What was seen was the last version.
            Ok(None) => return ExitCode::SUCCESS,
            Ok(Some(body)) => {
                if follow_one(body, &mut seen, output).await {
                    return ExitCode::SUCCESS;
                }
                away_since = Instant::now();
            }
            Err(failure) if away_since.elapsed() > PATIENCE || !passes(&failure) => {
                eprintln!("{failure}");
                return ExitCode::from(failure.exit_code());
            }
            Err(_) => {}
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Tells whether the same request may soon be answered otherwise.
fn passes(failure: &Failure) -> bool {
    match failure {
        Failure::Unreachable(_) => true,
        Failure::Refused(status, _) => matches!(*status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS),
    }
}

/// Prints the events of one connection; `true` when nothing can follow, or nobody reads any more.
async fn follow_one(mut body: Incoming, seen: &mut Option<String>, output: Output) -> bool {
    let mut text = Vec::new();
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(SILENCE, body.frame()).await {
        text.extend_from_slice(&frame.into_data().unwrap_or_default());
        while let Some(at) = text.windows(2).position(|two| two == b"\n\n") {
            let block: Vec<u8> = text.drain(..at + 2).collect();
            let Some((id, order)) = event(&String::from_utf8_lossy(&block)) else { continue };
            let shown = output::line(&line(&order, output));
            *seen = Some(id);
            if !shown || order["status"] != "created" {
                return true;
            }
        }
    }
    false
}

/// Reads one event: its id and the order. A comment is none.
fn event(block: &str) -> Option<(String, Value)> {
    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    Some((field("id")?.to_owned(), serde_json::from_str(field("data")?).ok()?))
}

fn line(order: &Value, output: Output) -> String {
    match output {
        Output::Json => order.to_string(),
        Output::Table => {
            let text = |name: &str| order[name].as_str().unwrap_or_default().to_owned();
            format!("{}  version {}  {}", text("orderId"), order["version"], text("status"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_has_an_id_and_an_order_and_a_comment_has_neither() {
        let block = "id: 2\nevent: order\ndata: {\"version\":2,\"status\":\"processed\"}\n\n";
        assert_eq!(event(block), Some(("2".to_owned(), json!({"version": 2, "status": "processed"}))));
        assert_eq!(event(": nothing new\n\n"), None);
    }
}
