//! `minishop order watch`: follows an order until its status is final.

use std::process::ExitCode;

use serde_json::Value;

use super::client::{Client, encoded};
use super::events;
use crate::output::{self, Output};

/// Prints each version of an order after `seen` until its status is final.
pub async fn follow(client: &Client, id: &str, seen: Option<u32>, output: Output) -> ExitCode {
    let path = format!("/orders/{}/events", encoded(id));
    let last = seen.map(|version| version.to_string());
    events::follow(client, &path, last, |order| output::line(&line(order, output)) && order["status"] == "created").await
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
