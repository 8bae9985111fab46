//! `minishop order announce`: publishes again the `orders.created` event of orders that have lost it.

use std::process::ExitCode;
use std::time::Duration;

use minishop_platform::config::duration;
use serde_json::{Value, json};

use super::client::{Client, Failure};
use crate::cli::EXIT_NO;
use crate::output::{self, Output};

/// Which orders.
#[derive(Debug, clap::Args)]
pub struct Lost {
    /// Order ids.
    #[arg(required_unless_present = "older_than", conflicts_with = "older_than")]
    ids: Vec<String>,
    /// All orders accepted at least this long ago, such as 15m, whose event is lost.
    #[arg(long, value_parser = duration)]
    older_than: Option<Duration>,
    /// Show what would happen, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Reason, for the audit log.
    #[arg(long, default_value = "")]
    reason: String,
    /// Name of the operator, for the audit log.
    #[arg(long, default_value = "")]
    operator: String,
}

/// Asks page by page until all orders were checked; returns all answers as one document.
pub async fn announce(client: &Client, lost: &Lost) -> Result<Value, Failure> {
    let mut body = json!({"dryRun": lost.dry_run, "reason": lost.reason, "operator": lost.operator});
    if !lost.ids.is_empty() {
        body["orderIds"] = lost.ids.clone().into();
    }
    if let Some(age) = lost.older_than {
        body["olderThanSeconds"] = age.as_secs().into();
    }
    let (mut orders, mut skipped) = (Vec::new(), Vec::new());
    loop {
        let mut answer = client.post("/ops/orders/announce", &body, None).await?;
        for (all, member) in [(&mut orders, "orderIds"), (&mut skipped, "skipped")] {
            all.extend(answer[member].as_array_mut().map(std::mem::take).unwrap_or_default());
        }
        body["pageToken"] = answer["nextPageToken"].take();
        if body["pageToken"].as_str().is_none_or(str::is_empty) {
            return Ok(json!({"orderIds": orders, "skipped": skipped}));
        }
    }
}

/// Prints the announced and the skipped orders; exit 1 when one was skipped.
pub fn print(answer: &Value, lost: &Lost, output: Output) -> ExitCode {
    let rows = |member: &str| answer[member].as_array().map_or(&[][..], Vec::as_slice);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let printed = if output == Output::Json {
        output::json(answer)
    } else {
        let what = if lost.dry_run { "would be announced" } else { "announced" };
        let announced = rows("orderIds").iter().map(|id| [text(id), what.to_owned()]);
        let skipped = rows("skipped").iter().map(|left| [text(&left["orderId"]), text(&left["reason"])]);
        output::table(["ORDER", "RESULT"], announced.chain(skipped))
    };
    if rows("skipped").is_empty() { printed } else { ExitCode::from(EXIT_NO) }
}
