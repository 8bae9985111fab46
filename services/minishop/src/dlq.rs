//! `minishop dlq`: dead letters, what became of them, and operations over them, on a running server.

mod follow;
mod select;
mod show;

use std::process::ExitCode;

use clap::Subcommand;
use minishop_platform::boot::refuse;
use serde_json::{Value, json};

use crate::cli::EXIT_NO;
use crate::order::client::{self, Client, Failure, Server};
use crate::output::{self, Output};
use select::{Filter, Set};

/// What to do with dead letters.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: Server,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show how many events are to be published, retrying, waiting behind others or dead, and which endpoints are paused.
    Status {
        /// Print the status on every change, until interrupted.
        #[arg(long)]
        watch: bool,
    },
    /// List dead letters, newest first.
    List {
        #[command(flatten)]
        filter: Filter,
        /// Maximum number of dead letters.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Group dead letters by their error.
    Groups,
    /// Show one dead letter with its original bytes.
    Show {
        /// Id of the dead letter.
        id: String,
    },
    /// Process dead letters again: first one, then five, then a tenth, then the rest; stops when too many fail.
    Redrive {
        #[command(flatten)]
        set: Set,
        /// Stop when more than this share fails, 0.01 to 1; 0.1 unless given.
        #[arg(long)]
        failure_ratio: Option<f64>,
        /// Reason, for the audit log.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Give up dead letters for good; their orders become `failed`.
    Discard {
        #[command(flatten)]
        set: Set,
        /// Reason, for the audit log and the orders' timelines; required.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// List record keys whose events wait, oldest first.
    Keys {
        /// Maximum number of keys.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// List redrives and discards, newest first.
    Operations {
        /// Maximum number of operations.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Show the progress of a redrive or discard.
    Operation {
        /// Id of the operation.
        id: String,
        /// Show progress until the operation has ended; exit 1 if it was stopped.
        #[arg(long)]
        wait: bool,
    },
    /// Pause an operation: it releases no more dead letters.
    Pause(Control),
    /// Resume a paused operation.
    Resume(Control),
    /// Cancel an operation: dead letters that were not released stay dead.
    Cancel(Control),
    /// List the entries of the audit log, newest first.
    Audit {
        /// Maximum number of entries.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
}

/// The operation to control.
#[derive(Debug, clap::Args)]
struct Control {
    /// Id of the operation.
    id: String,
    /// Reason, for the audit log.
    #[arg(long, default_value = "")]
    reason: String,
    /// Name of the operator, for the audit log.
    #[arg(long, default_value = "")]
    operator: String,
}

/// Asks the server; exit 1 when it refuses, 69 when it does not answer.
pub async fn run(args: Args) -> ExitCode {
    let Args { server, what } = args;
    server.ask(async |client| ask(client, what, server.output).await).await
}

async fn ask(client: &Client, what: What, output: Output) -> Result<ExitCode, Failure> {
    let (answer, table): (Value, fn(&Value) -> ExitCode) = match what {
        What::List { filter, limit } => {
            (client.pages("/ops/dead-letters", &filter.query(), "deadLetters", limit).await?, show::letters)
        }
        What::Status { watch: true } => return Ok(follow::status(client, output).await),
        What::Status { watch: false } => (client.get("/ops/status").await?, show::status),
        What::Groups => (client.get("/ops/dead-letter-groups?pageSize=500").await?["groups"].take(), show::groups),
        What::Show { id } => (client.get(&format!("/ops/dead-letters/{}", client::encoded(&id))).await?, show::letter),
        What::Keys { limit } => (client.pages("/ops/parked-keys", "", "keys", limit).await?, show::keys),
        What::Operations { limit } => (client.pages("/ops/operations", "", "operations", limit).await?, show::operations),
        What::Audit { limit } => (client.pages("/ops/audit", "", "entries", limit).await?, show::audit),
        What::Operation { id, wait: false } => (client.get(&operation_path(&id)).await?, show::operation),
        What::Operation { id, wait: true } => return follow::to_the_end(client, &id, output).await,
        What::Pause(control) => (change(client, "pause", &control).await?, show::operation),
        What::Resume(control) => (change(client, "resume", &control).await?, show::operation),
        What::Cancel(control) => (change(client, "cancel", &control).await?, show::operation),
        What::Redrive { set, failure_ratio, reason } => {
            let mut body = set.body(&reason);
            if let Some(ratio) = failure_ratio {
                body["failureRatio"] = ratio.into();
            }
            return operate(client, "redrive", &set, body, output).await;
        }
        What::Discard { set, reason } => {
            let body = set.body(&reason);
            return operate(client, "discard", &set, body, output).await;
        }
    };
    Ok(if output == Output::Json { output::json(&answer) } else { table(&answer) })
}

fn operation_path(id: &str) -> String {
    format!("/ops/operations/{}", client::encoded(id))
}

async fn change(client: &Client, action: &str, control: &Control) -> Result<Value, Failure> {
    let body = json!({"action": action, "reason": control.reason, "operator": control.operator});
    client.post(&format!("{}/control", operation_path(&control.id)), &body, None).await
}

/// Starts a redrive or a discard. A set chosen by a filter must be confirmed, after a dry run that counts it.
async fn operate(client: &Client, verb: &str, set: &Set, body: Value, printed: Output) -> Result<ExitCode, Failure> {
    let path = format!("/ops/dead-letters/{verb}");
    if set.needs_confirmation() {
        if !output::can_ask() {
            let what = "a filter may match many dead letters; confirm at a terminal, give --yes, or check first with --dry-run";
            return Ok(refuse(&[format!("error[USAGE] dlq {verb}: {what}")]));
        }
        let mut rehearsal = body.clone();
        rehearsal["dryRun"] = true.into();
        let matched = client.post(&path, &rehearsal, None).await?["matched"].as_u64().unwrap_or_default();
        if !output::confirmed(&format!("{verb} {matched} dead letters?")) {
            return Ok(ExitCode::from(EXIT_NO));
        }
    }
    let answer = client.post(&path, &body, None).await?;
    let id = answer["operation"]["id"].as_str().map(str::to_owned);
    match id.filter(|_| set.wait) {
        Some(id) => follow::to_the_end(client, &id, printed).await,
        None if printed == Output::Json => Ok(output::json(&answer)),
        None => Ok(show::begun(&answer)),
    }
}
