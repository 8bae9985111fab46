//! Replay: publishes the events of past orders to another topic, for a consumer that starts late. It finds the orders, sends at a
//! limited rate, and writes the audit log.

use std::time::Duration;

use minishop_bus::produce::{Compression, Producer, Report, SendError, Token};
use minishop_bus::topics::exists;
use minishop_contracts::topics;
use minishop_core::clock::Clock;
use minishop_core::ids::{Ids, OrderId};
use minishop_store::{AuditRow, NewEvent, Past, PastOrder, RequestedBy, Store, StoreError};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::rebuild::Rebuilder;
use crate::config::Config;

/// How long the brokers may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Orders read in one page.
const PAGE: i64 = 1000;
/// How long a delivery report may take.
const LAST_REPORTS: Duration = Duration::from_secs(30);

/// A replay of past orders to a topic.
#[derive(Debug)]
pub struct Replay<'a> {
    pub config: &'a Config,
    pub store: &'a Store,
    /// The orders whose events are published.
    pub past: &'a Past,
    /// The target, prefix included.
    pub topic: &'a str,
    pub rate: u32,
    /// Who asks, for the audit log.
    pub requested_by: &'a RequestedBy,
    pub clock: &'a dyn Clock,
    pub ids: &'a dyn Ids,
}

/// How much a replay publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub orders: usize,
    pub events: usize,
}

/// Why a replay is refused, or was cut short.
#[derive(Debug)]
pub enum ReplayError {
    /// The topic may not be published to: a code and the reason.
    Topic(&'static str, &'static str),
    Store(StoreError),
    /// An event cannot be built from this order.
    Order(OrderId, anyhow::Error),
    Unreachable(String),
    Refused(SendError),
}

/// Checks that a topic exists and is not one of the live topics.
pub async fn check_topic(config: &Config, topic: &str) -> Result<(), ReplayError> {
    let is_live = |name: &str| topic == name || topic == topics::prefixed(&config.topic_prefix, name);
    if topics::ALL.iter().any(|name| is_live(name)) {
        let reason = "is a live topic: consumers would take past events for new; give another topic";
        return Err(ReplayError::Topic("NOT_ALLOWED", reason));
    }
    let brokers = config.brokers();
    let there = exists(&brokers, topic, PATIENCE).await;
    if there.map_err(|error| ReplayError::Unreachable(format!("{brokers}: {error:#}")))? {
        return Ok(());
    }
    Err(ReplayError::Topic("UNKNOWN_VALUE", "does not exist; create it first, with the settings that its consumer needs"))
}

impl Replay<'_> {
    /// Counts the orders and events.
    pub async fn extent(&self) -> Result<Extent, ReplayError> {
        let (mut orders, mut events) = (0, 0);
        self.each_page(async |page| {
            orders += page.len();
            let ended = page.iter().filter(|past| past.end.is_some() && past.origin.order.status.is_final());
            events += page.len() + ended.count();
            Ok(())
        })
        .await?;
        Ok(Extent { orders, events })
    }

    /// Publishes the events, between two rows of the audit log; returns how many were delivered.
    pub async fn publish(&self, extent: Extent) -> Result<u64, ReplayError> {
        self.write_audit("accepted", extent, 0).await?;
        let mut sender = Sender::new(&self.config.brokers(), self.config.kafka_compression, self.rate)?;
        let outcome = self.send_all(&mut sender).await;
        let word = if outcome.is_ok() { "done" } else { "stopped" };
        let audited = self.write_audit(word, extent, sender.delivered).await;
        outcome.and(audited)?;
        Ok(sender.delivered)
    }

    async fn send_all(&self, sender: &mut Sender) -> Result<(), ReplayError> {
        let writer = Rebuilder::new(self.config, self.topic);
        self.each_page(async |page| {
            for past in page {
                let broken = |error| ReplayError::Order(past.origin.order.head.order_id, error);
                for event in writer.events(&past, self.ids).map_err(broken)? {
                    sender.send(event).await?;
                }
            }
            Ok(())
        })
        .await?;
        sender.finish().await
    }

    /// Visits the orders, page by page.
    async fn each_page(&self, mut visit: impl AsyncFnMut(Vec<PastOrder>) -> Result<(), ReplayError>) -> Result<(), ReplayError> {
        let mut after = None;
        loop {
            let (page, last) = self.store.history.orders(self.past, after, PAGE).await.map_err(ReplayError::Store)?;
            if last.is_none() {
                return Ok(());
            }
            visit(page).await?;
            after = last;
        }
    }

    async fn write_audit(&self, outcome: &str, extent: Extent, published: u64) -> Result<(), ReplayError> {
        let Past { order_id, customer_id, from, until } = self.past;
        let order = order_id.map(|id| id.to_string());
        let selection = json!({"order": order, "customer": customer_id, "from": from, "to": until});
        let detail =
            json!({"topic": self.topic, "selection": selection, "orders": extent.orders, "published": published}).to_string();
        let row = AuditRow {
            id: 0,
            at: self.clock.now(),
            action: "replay".to_owned(),
            requested_by: self.requested_by.clone(),
            outcome: outcome.to_owned(),
            operation_id: None,
            detail: Some(detail),
        };
        self.store.operations.write_audit(&row).await.map_err(ReplayError::Store)
    }
}

/// Sends at a limited rate, and collects the delivery report of every record.
struct Sender {
    producer: Producer,
    reports: mpsc::UnboundedReceiver<Report>,
    next: Instant,
    pace: Duration,
    sent: i64,
    delivered: u64,
}

impl Sender {
    fn new(brokers: &str, compression: Compression, rate: u32) -> Result<Self, ReplayError> {
        let (report_to, reports) = mpsc::unbounded_channel();
        let unreachable = |error| ReplayError::Unreachable(format!("{brokers}: {error:#}"));
        let producer = Producer::new(brokers, compression, report_to).map_err(unreachable)?;
        Ok(Self { producer, reports, next: Instant::now(), pace: Duration::from_secs(1) / rate, sent: 0, delivered: 0 })
    }

    async fn send(&mut self, event: NewEvent) -> Result<(), ReplayError> {
        tokio::time::sleep_until(self.next).await;
        // The rate is a maximum: time lost in a delay is not made up for.
        self.next = self.next.max(Instant::now().checked_sub(self.pace).unwrap_or(self.next)) + self.pace;
        while let Ok(report) = self.reports.try_recv() {
            self.count(report)?;
        }
        loop {
            let token = Token { shard: 0, number: self.sent, generation: 0 };
            match self.producer.send(token, &event.topic, &event.record_key, event.payload.as_ref(), &event.headers) {
                Ok(()) => break,
                Err(SendError::QueueFull) => self.await_report().await?,
                Err(error) => return Err(ReplayError::Refused(error)),
            }
        }
        self.sent += 1;
        Ok(())
    }

    /// Waits until every record is delivered.
    async fn finish(&mut self) -> Result<(), ReplayError> {
        while self.delivered < u64::try_from(self.sent).unwrap_or_default() {
            self.await_report().await?;
        }
        Ok(())
    }

    async fn await_report(&mut self) -> Result<(), ReplayError> {
        if let Ok(Some(report)) = tokio::time::timeout(LAST_REPORTS, self.reports.recv()).await {
            return self.count(report);
        }
        let unconfirmed = self.sent - i64::try_from(self.delivered).unwrap_or_default();
        let text = format!("the brokers have not acknowledged {unconfirmed} records; the audit log has the number published");
        Err(ReplayError::Unreachable(text))
    }

    fn count(&mut self, report: Report) -> Result<(), ReplayError> {
        report.result.map_err(ReplayError::Refused)?;
        self.delivered += 1;
        Ok(())
    }
}
