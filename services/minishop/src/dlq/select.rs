//! Which dead letters a command is about, and who confirms it.

use std::io::{IsTerminal as _, Write as _};

use serde_json::{Map, Value, json};

use crate::order::client::encoded;

/// Chooses dead letters; what is not given chooses all.
#[derive(Debug, clap::Args)]
pub struct Filter {
    /// Only this kind of error, such as refused.
    #[arg(long)]
    class: Option<String>,
    /// Only this error code, such as `DATA_INVALID`.
    #[arg(long)]
    code: Option<String>,
    /// Only this group, by its fingerprint.
    #[arg(long)]
    fingerprint: Option<String>,
    /// Only events of this topic.
    #[arg(long)]
    topic: Option<String>,
    /// Only events of this record key.
    #[arg(long)]
    key: Option<String>,
    /// Only events of this order.
    #[arg(long)]
    order: Option<String>,
}

impl Filter {
    fn given(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("errorClass", &self.class),
            ("errorCode", &self.code),
            ("errorFingerprint", &self.fingerprint),
            ("topic", &self.topic),
            ("key", &self.key),
            ("orderId", &self.order),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_deref()?)))
    }

    /// Writes the filter as parameters of a query.
    pub fn query(&self) -> String {
        self.given().flat_map(|(name, value)| ["&".to_owned(), name.to_owned(), "=".to_owned(), encoded(value)]).collect()
    }
}

/// The set of a redrive or a discard.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Set {
    /// The dead letters' ids.
    ids: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// All dead letters that there are now.
    #[arg(long)]
    all: bool,
    /// Tell what would happen, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Ask nobody.
    #[arg(long)]
    yes: bool,
    /// Events in a second at most, 1 to 10000.
    #[arg(long)]
    rate: Option<i64>,
    /// Who asks, for the audit.
    #[arg(long, default_value = "")]
    operator: String,
    /// Follow the operation until it has ended; exit 1 when it was stopped.
    #[arg(long)]
    pub wait: bool,
}

/// Who confirms that a set is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirm {
    /// Nobody needs to.
    Needless,
    /// The person at the terminal.
    Ask,
    /// Nobody is there.
    Refuse,
}

impl Set {
    /// Writes the request. What it lacks or has too much of is for the server to say.
    pub fn body(&self, reason: &str) -> Value {
        let mut body = json!({"dryRun": self.dry_run, "reason": reason, "operator": self.operator});
        if !self.ids.is_empty() {
            body["ids"] = self.ids.clone().into();
        }
        if self.by_filter() {
            let filter: Map<String, Value> = self.filter.given().map(|(name, value)| (name.to_owned(), value.into())).collect();
            body["filter"] = filter.into();
        }
        if let Some(rate) = self.rate {
            body["rate"] = rate.into();
        }
        body
    }

    /// Tells who must confirm: ids were named one by one, a filter may choose more than was meant.
    pub fn confirm(&self) -> Confirm {
        if !self.by_filter() || self.yes || self.dry_run {
            Confirm::Needless
        } else if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
            Confirm::Ask
        } else {
            Confirm::Refuse
        }
    }

    fn by_filter(&self) -> bool {
        self.all || self.filter.given().next().is_some()
    }
}

/// Asks the person at the terminal.
pub fn confirmed(verb: &str, matched: u64) -> bool {
    eprint!("{verb} {matched} dead letters? [y/N] ");
    let _ = std::io::stderr().flush();
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).is_ok() && matches!(line.trim(), "y" | "Y" | "yes")
}
