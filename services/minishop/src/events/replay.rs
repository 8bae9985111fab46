//! `minishop events replay`: publishes past events again, from the database to a topic that a new consumer reads.
//!
//! It uses database and brokers directly, beside running servers: PostgreSQL and Kafka, or the embedded store and the embedded
//! log of a running `minishop up`.

use std::fmt;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, Utc};
use minishop_bus::Headers;
use minishop_bus::produce::Token;
use minishop_bus::produce::{Compression, Producer, SendError};
use minishop_bus::topics::exists;
use minishop_contracts::topics;
use minishop_core::clock::Clock as _;
use minishop_core::ids::OrderId;
use minishop_platform::boot::{print, refuse};
use minishop_platform::clock::{SystemClock, SystemIds};
use minishop_platform::config::Config;
use minishop_platform::replay::ReplayWriter;
use minishop_store::{AuditRow, NewEvent, Past, PastOrder, Store, StoreError};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::cli::{EXIT_NO, EXIT_UNREACHABLE};
use crate::output::{self, Output};
use crate::store;

/// How long the brokers may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Orders read in one page.
const PAGE: i64 = 1000;
/// How long a delivery report may take.
const LAST_REPORTS: Duration = Duration::from_secs(30);

/// What is published again, and where to.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Target topic, named with its prefix; must exist and must not be a live topic.
    #[arg(long)]
    to_topic: String,
    /// Only events of this order, by its id.
    #[arg(long)]
    order: Option<String>,
    /// Only events of this customer's orders.
    #[arg(long)]
    customer: Option<String>,
    /// Only events of orders accepted at or after this time, such as 2026-01-31T12:00:00Z.
    #[arg(long)]
    from: Option<DateTime<Utc>>,
    /// Only events of orders accepted before this time.
    #[arg(long, alias = "until")]
    to: Option<DateTime<Utc>>,
    /// Maximum number of events per second, 1 to 10000.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Show how many events match, and publish nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation.
    #[arg(long)]
    yes: bool,
    /// Reason, for the audit log.
    #[arg(long, default_value = "")]
    reason: String,
    /// Name of the operator, for the audit log.
    #[arg(long, default_value = "")]
    operator: String,
    /// Output format.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Why nothing, or not everything, was published.
enum Failure {
    /// Refused: a field and its code, or a code alone.
    No(String),
    /// Confirmation is needed, and there is no terminal.
    Usage(String),
    /// The database or the brokers do not answer.
    Unreachable(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No(text) => f.write_str(text),
            Self::Usage(text) => write!(f, "error[USAGE] events replay: {text}"),
            Self::Unreachable(text) => write!(f, "error[UNREACHABLE] {text}"),
        }
    }
}

impl From<store::Failure> for Failure {
    fn from(failure: store::Failure) -> Self {
        match failure {
            store::Failure::No(text) => Self::No(text),
            store::Failure::Unreachable(text) => Self::Unreachable(text),
        }
    }
}

fn field(name: &str, code: &str, message: &str) -> Failure {
    Failure::No(format!("error[VALIDATION_FAILED] events replay: nothing was published\n  {name} {code}: {message}"))
}

/// Publishes past events; exit 1 when that is refused or cut short, 69 when database or brokers do not answer.
pub async fn run(args: Args, config: Config) -> ExitCode {
    match replay(&args, &config).await {
        Ok(code) => code,
        Err(Failure::Usage(text)) => refuse(&[Failure::Usage(text).to_string()]),
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(if matches!(failure, Failure::Unreachable(_)) { EXIT_UNREACHABLE } else { EXIT_NO })
        }
    }
}

async fn replay(args: &Args, config: &Config) -> Result<ExitCode, Failure> {
    let past = selection(args)?;
    let brokers = config.kafka_brokers.clone().unwrap_or_else(|| config.kafka_addr.to_string());
    check_topic(args, config, &brokers).await?;
    let store = open(config).await?;
    let (orders, events) = count(&store, &past).await?;
    if orders == 0 && past.order_id.is_some() {
        return Err(Failure::No("error[ORDER_NOT_FOUND] There is no such order; check the id.".to_owned()));
    }
    if args.dry_run || orders == 0 {
        return Ok(tell(args, orders, events, 0));
    }
    confirm(args, orders, events)?;
    let history = ReplayWriter::new(config, &args.to_topic);
    write_audit(&store, args, "accepted", orders, 0).await?;
    let mut sender = Sender::new(&brokers, config.kafka_compression, args.rate)?;
    let outcome = publish(&store, &past, &history, &mut sender).await;
    let word = if outcome.is_ok() { "done" } else { "stopped" };
    let audited = write_audit(&store, args, word, orders, sender.delivered).await;
    outcome.and(audited)?;
    Ok(tell(args, orders, events, sender.delivered))
}

/// Validates the selection of orders.
fn selection(args: &Args) -> Result<Past, Failure> {
    let Args { order, customer, from, to, .. } = args;
    if order.is_none() && customer.is_none() && from.is_none() && to.is_none() {
        let message = "give --order, --customer, or a time with --from or --to";
        return Err(field("selection", "REQUIRED", message));
    }
    if matches!((from, to), (Some(from), Some(to)) if from > to) {
        return Err(field("to", "OUT_OF_RANGE", "must not be before --from"));
    }
    let order_id = match order.as_deref().map(OrderId::parse) {
        Some(None) => return Err(field("order", "INVALID_FORMAT", "must be a UUID with dashes")),
        Some(id) => id,
        None => None,
    };
    Ok(Past { order_id, customer_id: customer.clone(), from: *from, until: *to })
}

/// Checks that the topic exists and is not one of the live topics.
async fn check_topic(args: &Args, config: &Config, brokers: &str) -> Result<(), Failure> {
    let is_live = |name: &str| args.to_topic == name || args.to_topic == topics::prefixed(&config.topic_prefix, name);
    if topics::ALL.iter().any(|name| is_live(name)) {
        return Err(field(
            "topic",
            "NOT_ALLOWED",
            "is a live topic: consumers would take past events for new; give another topic",
        ));
    }
    let there = exists(brokers, &args.to_topic, PATIENCE).await;
    if there.map_err(|error| Failure::Unreachable(format!("{brokers}: {error:#}")))? {
        return Ok(());
    }
    Err(field("topic", "UNKNOWN_VALUE", "does not exist; create it first, with the settings that its consumer needs"))
}

async fn open(config: &Config) -> Result<Store, Failure> {
    store::open(config, "minishop-replay").await.map_err(Failure::from)
}

fn store_failed(error: StoreError) -> Failure {
    store::Failure::of_store(error).into()
}

/// Visits the orders, page by page.
async fn each_page(
    store: &Store,
    past: &Past,
    mut visit: impl AsyncFnMut(Vec<PastOrder>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut after = None;
    loop {
        let (page, last) = store.history.orders(past, after, PAGE).await.map_err(store_failed)?;
        if last.is_none() {
            return Ok(());
        }
        visit(page).await?;
        after = last;
    }
}

async fn count(store: &Store, past: &Past) -> Result<(usize, usize), Failure> {
    let (mut orders, mut events) = (0, 0);
    each_page(store, past, async |page| {
        orders += page.len();
        events += page.len() + page.iter().filter(|past| past.end.is_some() && past.origin.order.status.is_final()).count();
        Ok(())
    })
    .await?;
    Ok((orders, events))
}

/// Asks for confirmation, unless `--yes` or `--order` is given.
fn confirm(args: &Args, orders: usize, events: usize) -> Result<(), Failure> {
    if args.yes || args.order.is_some() {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Failure::Usage("confirmation needs a terminal; give --yes, or check first with --dry-run".to_owned()));
    }
    eprint!("publish {events} events of {orders} orders to {}? [y/N] ", args.to_topic);
    let _ = std::io::stderr().flush();
    let mut line = String::new();
    let yes = std::io::stdin().read_line(&mut line).is_ok() && matches!(line.trim(), "y" | "Y" | "yes");
    if yes { Ok(()) } else { Err(Failure::No("nothing was published".to_owned())) }
}

async fn write_audit(store: &Store, args: &Args, outcome: &str, orders: usize, published: u64) -> Result<(), Failure> {
    let at = SystemClock.now();
    let selection = json!({"order": args.order, "customer": args.customer, "from": args.from, "to": args.to});
    let detail = json!({"topic": args.to_topic, "selection": selection, "orders": orders, "published": published});
    let row = AuditRow {
        id: 0,
        at,
        action: "replay".to_owned(),
        requested_by: store::requested_by(args.operator.clone(), args.reason.clone(), at),
        outcome: outcome.to_owned(),
        operation_id: None,
        detail: Some(detail.to_string()),
    };
    store.operations.write_audit(&row).await.map_err(store_failed)
}

async fn publish(store: &Store, past: &Past, history: &ReplayWriter, sender: &mut Sender) -> Result<(), Failure> {
    each_page(store, past, async |page| {
        for past in page {
            let broken = |error| Failure::No(format!("error[INTERNAL] order {}: {error:#}", past.origin.order.head.order_id));
            for event in history.events(&past, &SystemIds).map_err(broken)? {
                sender.send(event).await?;
            }
        }
        Ok(())
    })
    .await?;
    sender.finish().await
}

fn tell(args: &Args, orders: usize, events: usize, published: u64) -> ExitCode {
    if args.output == Output::Json {
        return output::json(&json!({"orders": orders, "events": events, "published": published, "topic": args.to_topic}));
    }
    let done = if args.dry_run { "dry run: nothing was published".to_owned() } else { format!("{published} published") };
    print(&format!("{orders} orders matched with {events} events; {done}\n"))
}

/// Sends at a limited rate, and collects the delivery report of every record.
struct Sender {
    producer: Producer,
    reports: mpsc::UnboundedReceiver<minishop_bus::produce::Report>,
    next: Instant,
    pace: Duration,
    sent: i64,
    delivered: u64,
}

impl Sender {
    fn new(brokers: &str, compression: Compression, rate: u32) -> Result<Self, Failure> {
        let (told, reports) = mpsc::unbounded_channel();
        let producer =
            Producer::new(brokers, compression, told).map_err(|error| Failure::Unreachable(format!("{brokers}: {error:#}")))?;
        Ok(Self { producer, reports, next: Instant::now(), pace: Duration::from_secs(1) / rate, sent: 0, delivered: 0 })
    }

    async fn send(&mut self, event: NewEvent) -> Result<(), Failure> {
        tokio::time::sleep_until(self.next).await;
        // After a delay it does not catch up.
        self.next = self.next.max(Instant::now().checked_sub(self.pace).unwrap_or(self.next)) + self.pace;
        while let Ok(report) = self.reports.try_recv() {
            self.hear(report.result)?;
        }
        let headers = Headers::decode(event.headers).unwrap_or_default();
        loop {
            let token = Token { shard: 0, number: self.sent, life: 0 };
            match self.producer.send(token, &event.topic, &event.record_key, event.payload.as_ref(), &headers) {
                Ok(()) => break,
                Err(SendError::QueueFull) => self.wait(LAST_REPORTS).await?,
                Err(error) => return Err(cut_short(&error)),
            }
        }
        self.sent += 1;
        Ok(())
    }

    /// Waits until every record is delivered.
    async fn finish(&mut self) -> Result<(), Failure> {
        while self.delivered < u64::try_from(self.sent).unwrap_or_default() {
            self.wait(LAST_REPORTS).await?;
        }
        Ok(())
    }

    async fn wait(&mut self, at_most: Duration) -> Result<(), Failure> {
        if let Ok(Some(report)) = tokio::time::timeout(at_most, self.reports.recv()).await {
            return self.hear(report.result);
        }
        let unconfirmed = self.sent - i64::try_from(self.delivered).unwrap_or_default();
        Err(Failure::Unreachable(format!(
            "the brokers have not acknowledged {unconfirmed} records; the audit log has the number published"
        )))
    }

    fn hear(&mut self, result: Result<(), SendError>) -> Result<(), Failure> {
        result.map_err(|error| cut_short(&error))?;
        self.delivered += 1;
        Ok(())
    }
}

fn cut_short(error: &SendError) -> Failure {
    Failure::No(format!("error[DEPENDENCY_REFUSED] the broker refused a record: {error}; the audit log has the number published"))
}
