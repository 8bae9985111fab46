//! Follows an operation until it has ended, or the status until interrupted.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use super::{operation_path, show};
use crate::cli::EXIT_NO;
use crate::order::client::{Client, Failure};
use crate::order::events;
use crate::output::{self, Output};

/// How often the server is polled.
const PACE: Duration = Duration::from_millis(200);
/// The width of the bar, in characters.
const WIDTH: u64 = 30;

/// Shows the progress of an operation until it has ended, then its result; exit 1 when it was stopped.
pub async fn to_the_end(client: &Client, id: &str, output: Output) -> Result<ExitCode, Failure> {
    let (path, mut last) = (operation_path(id), Value::Null);
    loop {
        let answer = client.get(&path).await?;
        let operation = &answer["operation"];
        if operation["progress"] != last {
            print_progress(operation);
            last = operation["progress"].clone();
        }
        if !operation["endedAt"].is_null() {
            if std::io::stderr().is_terminal() {
                eprintln!();
            }
            let stopped = operation["state"] == "stopped";
            let printed = if output == Output::Json { output::json(&answer) } else { show::operation(&answer) };
            return Ok(if stopped { ExitCode::from(EXIT_NO) } else { printed });
        }
        tokio::time::sleep(PACE).await;
    }
}

/// Prints the backlog and the number of running operations whenever they change, until standard output is closed.
pub async fn status(client: &Client, output: Output) -> ExitCode {
    let line = |now: &Value| match output {
        Output::Json => now.to_string(),
        Output::Table => show::status_line(now),
    };
    events::follow(client, "/ops/stream", None, |now| output::line(&line(now))).await
}

/// Draws a bar on a terminal; prints a line elsewhere.
fn print_progress(operation: &Value) {
    let count = |name: &str| operation["progress"][name].as_u64().unwrap_or_default();
    let (decided, skipped) = (count("succeeded") + count("failed"), count("skipped"));
    let all = decided + count("pending") + count("released");
    let line = format!(
        "{decided}/{all} decided, {} failed, {skipped} skipped, step {} of 4, {}",
        count("failed"),
        count("step"),
        operation["state"].as_str().unwrap_or_default()
    );
    if std::io::stderr().is_terminal() {
        let full = usize::try_from(WIDTH * decided / all.max(1)).unwrap_or_default();
        let rest = usize::try_from(WIDTH).unwrap_or_default().saturating_sub(full);
        eprint!("\r\x1b[K[{}{}] {line}", "#".repeat(full), "-".repeat(rest));
        let _ = std::io::stderr().flush();
    } else {
        eprintln!("{line}");
    }
}
