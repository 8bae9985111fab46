//! Which dead letters a command selects, and whether that must be confirmed.

use serde_json::{Map, Value, json};

use crate::order::client::encoded;

/// A filter of dead letters; without a condition it matches all.
#[derive(Debug, clap::Args)]
pub struct Filter {
    /// Only this error class, such as refused or transient.
    #[arg(long)]
    class: Option<String>,
    /// Only this error code, such as `DATA_INVALID`.
    #[arg(long)]
    code: Option<String>,
    /// Only the group with this fingerprint, as listed by `dlq groups`.
    #[arg(long)]
    fingerprint: Option<String>,
    /// Only events of this topic, named with its prefix.
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

    /// Encodes the filter as query parameters.
    pub fn query(&self) -> String {
        self.given().flat_map(|(name, value)| ["&".to_owned(), name.to_owned(), "=".to_owned(), encoded(value)]).collect()
    }
}

/// The set of a redrive or a discard.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Set {
    /// Ids of dead letters, at most 1000.
    ids: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// All dead letters that exist now.
    #[arg(long)]
    all: bool,
    /// Show what would happen, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation.
    #[arg(long)]
    yes: bool,
    /// Maximum number of events per second, 1 to 10000; 100 unless given.
    #[arg(long)]
    rate: Option<i64>,
    /// Name of the operator, for the audit log.
    #[arg(long, default_value = "")]
    operator: String,
    /// Show progress until the operation has ended; exit 1 if it was stopped.
    #[arg(long)]
    pub wait: bool,
}

impl Set {
    /// Builds the request. The server validates it.
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

    /// Returns whether the set must be confirmed: a filter may match more than intended.
    pub fn needs_confirmation(&self) -> bool {
        self.by_filter() && !self.yes && !self.dry_run
    }

    fn by_filter(&self) -> bool {
        self.all || self.filter.given().next().is_some()
    }
}
