//! Answers as tables, without control characters: foreign text must not control the terminal.

use std::fmt::Write as _;
use std::process::ExitCode;

use minishop_platform::boot::print;
use serde_json::Value;

use crate::output::{self, cell, visible};

fn rows(answer: &Value) -> &[Value] {
    answer.as_array().map_or(&[], Vec::as_slice)
}

fn listed<const N: usize>(headings: [&str; N], members: [&str; N], answer: &Value) -> ExitCode {
    output::table(headings, rows(answer).iter().map(|row| members.map(|name| cell(row, name))))
}

/// Prints the backlog and the paused endpoints.
pub fn status(answer: &Value) -> ExitCode {
    let printed = standing(answer);
    if rows(&answer["pausedEndpoints"]).is_empty() {
        return printed;
    }
    listed(
        ["ENDPOINT", "STATE", "SINCE", "NEXT PROBE", "WORKER", "REASON"],
        ["endpoint", "state", "since", "nextProbeAt", "worker", "reason"],
        &answer["pausedEndpoints"],
    )
}

fn standing(answer: &Value) -> ExitCode {
    let [retrying, waiting, dead] = ["retrying", "waiting", "dead"].map(|state| cell(&answer["parked"], state));
    let row = [cell(answer, "outboxDepth"), cell(answer, "oldestOutboxAgeSeconds"), retrying, waiting, dead];
    output::table(["TO BE PUBLISHED", "OLDEST IN SECONDS", "RETRYING", "WAITING", "DEAD"], [row])
}

/// Formats a status as one line.
pub fn status_line(now: &Value) -> String {
    let (status, parked) = (&now["status"], &now["status"]["parked"]);
    let open = rows(&now["operations"]).iter().filter(|operation| operation["endedAt"].is_null()).count();
    let [retrying, waiting, dead] = ["retrying", "waiting", "dead"].map(|state| cell(parked, state));
    let outbox = cell(status, "outboxDepth");
    let mut line =
        format!("{outbox} to be published, {retrying} retrying, {waiting} waiting, {dead} dead, {open} operations under way");
    for paused in rows(&status["pausedEndpoints"]) {
        let [endpoint, state, since, reason] = ["endpoint", "state", "since", "reason"].map(|name| cell(paused, name));
        // Writing to a String cannot fail.
        let _ = write!(line, "; {endpoint} is {state} since {since}: {reason}");
    }
    line
}

/// Prints a list of dead letters.
pub fn letters(answer: &Value) -> ExitCode {
    listed(
        ["ID", "CODE", "KEY", "ORDER", "ATTEMPTS", "REDRIVES", "LAST FAILED", "MESSAGE"],
        ["id", "errorCode", "key", "orderId", "attempts", "redrives", "lastFailedAt", "errorMessage"],
        answer,
    )
}

/// Prints groups.
pub fn groups(answer: &Value) -> ExitCode {
    listed(
        ["COUNT", "CODE", "FIRST FAILED", "LAST FAILED", "EXAMPLE", "MESSAGE", "FINGERPRINT"],
        ["count", "errorCode", "firstFailedAt", "lastFailedAt", "exampleId", "errorMessage", "errorFingerprint"],
        answer,
    )
}

/// Prints parked keys.
pub fn keys(answer: &Value) -> ExitCode {
    listed(
        ["KEY", "HEAD", "STATE", "CODE", "ATTEMPTS", "WAITING", "SINCE", "NEXT ATTEMPT"],
        ["key", "headId", "headState", "errorCode", "attempts", "waiting", "since", "nextAttemptAt"],
        answer,
    )
}

/// Prints the audit.
pub fn audit(answer: &Value) -> ExitCode {
    listed(
        ["AT", "ACTION", "OUTCOME", "CLIENT", "OPERATOR", "REASON", "OPERATION"],
        ["at", "action", "outcome", "client", "operator", "reason", "operationId"],
        answer,
    )
}

/// Prints operations.
pub fn operations(answer: &Value) -> ExitCode {
    output::table(
        ["ID", "KIND", "STATE", "PENDING", "RELEASED", "SUCCEEDED", "FAILED", "SKIPPED", "STARTED", "REASON"],
        rows(answer).iter().map(line),
    )
}

fn line(row: &Value) -> [String; 10] {
    let progress = &row["progress"];
    let [id, kind, state, begun, reason] = ["id", "kind", "state", "createdAt", "reason"].map(|name| cell(row, name));
    let [pending, released, succeeded, failed, skipped] =
        ["pending", "released", "succeeded", "failed", "skipped"].map(|name| cell(progress, name));
    [id, kind, state, pending, released, succeeded, failed, skipped, begun, reason]
}

/// Prints one operation, and its items that failed or were skipped.
pub fn operation(answer: &Value) -> ExitCode {
    let operation = &answer["operation"];
    let because = cell(operation, "stoppedBecause");
    let printed = operations(&Value::Array(vec![operation.clone()]));
    if !because.is_empty() {
        print(&format!("stopped: {because}\n"));
    }
    if rows(&answer["items"]).is_empty() {
        return printed;
    }
    listed(["DEAD LETTER", "STATE", "REASON", "ORDER"], ["deadLetterId", "state", "reason", "orderId"], &answer["items"])
}

/// Prints what a redrive or a discard will do.
pub fn begun(answer: &Value) -> ExitCode {
    let id = cell(&answer["operation"], "id");
    let begun = if id.is_empty() { "dry run: nothing was changed".to_owned() } else { format!("operation {id}") };
    let printed = print(&format!("{} matched, {begun}\n", cell(answer, "matched")));
    for skipped in rows(&answer["skipped"]) {
        print(&format!("{} skipped: {}\n", cell(skipped, "id"), cell(skipped, "reason")));
    }
    printed
}

/// Prints one dead letter with its original bytes.
pub fn letter(answer: &Value) -> ExitCode {
    let letter = &answer["deadLetter"];
    let mut text = String::new();
    let mut add = |name: &str, value: String| {
        if !value.is_empty() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name:<16}{value}");
        }
    };
    for (name, member) in [
        ("id", "id"),
        ("state", "state"),
        ("event", "eventId"),
        ("type", "type"),
        ("order", "orderId"),
        ("key", "key"),
        ("topic", "topic"),
        ("partition", "partition"),
        ("offset", "offset"),
        ("class", "errorClass"),
        ("code", "errorCode"),
        ("message", "errorMessage"),
        ("attempts", "attempts"),
        ("redrives", "redrives"),
        ("first failed", "firstFailedAt"),
        ("last failed", "lastFailedAt"),
        ("fingerprint", "errorFingerprint"),
    ] {
        add(name, cell(letter, member));
    }
    add("order status", cell(answer, "orderStatus"));
    add("waiting behind", cell(answer, "waiting"));
    add("next attempt", cell(answer, "nextAttemptAt"));
    for header in rows(&answer["headers"]) {
        add("header", format!("{}: {}", cell(header, "name"), bytes(&header["value"])));
    }
    add("raw key", bytes(&answer["rawKey"]));
    add("raw value", bytes(&answer["rawValue"]));
    print(&text)
}

/// Formats bytes as text if they are UTF-8, else in base64 as received.
fn bytes(value: &Value) -> String {
    let Some(encoded) = value.as_str() else { return "(null)".to_owned() };
    let decoded = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, encoded);
    match decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok()) {
        Some(text) => visible(&text),
        None => format!("base64 {encoded}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_of_the_status_tells_which_endpoints_are_left_alone() {
        let mut now = json!({
            "status": {"outboxDepth": 1, "parked": {"retrying": 2, "waiting": 3, "dead": 4}, "pausedEndpoints": []},
            "operations": [],
        });
        let line = "1 to be published, 2 retrying, 3 waiting, 4 dead, 0 operations under way";
        assert_eq!(status_line(&now), line);
        now["status"]["pausedEndpoints"] = json!([{
            "endpoint": "http://shop.test", "state": "paused", "since": "2026-01-31T12:00:00Z", "reason": "down\u{7}",
        }]);
        let paused = "; http://shop.test is paused since 2026-01-31T12:00:00Z: down\u{fffd}";
        assert_eq!(status_line(&now), format!("{line}{paused}"));
    }
}
