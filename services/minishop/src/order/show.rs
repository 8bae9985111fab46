//! `minishop order show`: what happened to an order.

use std::process::ExitCode;

use serde_json::Value;

use super::client::{Client, Failure, encoded};
use crate::output::{self, Output, cell};

/// Reads an order's timeline, all pages up to `limit` entries, as one document.
pub async fn read(client: &Client, id: &str, limit: usize) -> Result<Value, Failure> {
    let mut entries = Vec::new();
    let mut token = String::new();
    loop {
        let size = (limit - entries.len()).clamp(1, 500);
        let path = format!("/orders/{}/timeline?pageSize={size}&pageToken={}", encoded(id), encoded(&token));
        let mut page = client.get(&path).await?;
        entries.extend(page["entries"].as_array_mut().map(std::mem::take).unwrap_or_default());
        page["nextPageToken"].as_str().unwrap_or_default().clone_into(&mut token);
        if token.is_empty() || entries.len() >= limit {
            page["entries"] = entries.into();
            return Ok(page);
        }
    }
}

/// Prints a timeline.
pub fn print(timeline: &Value, output: Output) -> ExitCode {
    if output == Output::Json {
        return output::json(timeline);
    }
    let code = output::table(
        ["TIME", "KIND", "VERSION", "CAUSED BY", "EVENT", "CORRELATION", "DETAIL"],
        list(timeline, "entries").iter().map(|entry| {
            let version = if entry["version"] == 0 { String::new() } else { cell(entry, "version") };
            let [at, kind, cause, event, correlation] =
                ["at", "kind", "causationId", "eventId", "correlationId"].map(|name| cell(entry, name));
            [at, kind, version, cause, event, correlation, detail(&entry["detail"])]
        }),
    );
    if timeline["nextPageToken"].as_str().is_some_and(|token| !token.is_empty()) {
        output::line("… more entries exist; raise --limit");
    }
    if list(timeline, "parked").is_empty() {
        return code;
    }
    output::line("\nParked events:");
    output::table(
        ["EVENT", "STATE", "ATTEMPTS", "NEXT ATTEMPT", "BLOCKS", "ERROR"],
        list(timeline, "parked").iter().map(|event| {
            let [id, state, attempts, next, blocks, code, message] =
                ["eventId", "state", "attempts", "nextAttemptAt", "blocks", "errorCode", "errorMessage"]
                    .map(|name| cell(event, name));
            [id, state, attempts, next, blocks, format!("{code} {message}").trim().to_owned()]
        }),
    )
}

fn list<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

fn detail(detail: &Value) -> String {
    let members = detail.as_object().into_iter().flatten();
    members.map(|(name, _)| format!("{name}={}", cell(detail, name))).collect::<Vec<_>>().join(" ")
}
