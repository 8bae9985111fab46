//! Wake-ups between processes, through Redis.
//!
//! A hint only shortens a poll: nothing is answered, skipped or committed because of Redis. Without Redis, or while it is away,
//! processes poll as usual.

mod breaker;
mod changes;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::ctx::{Labels, Metrics, Status};
use breaker::Breaker;
pub use changes::{ChangedOrders, Changes};

/// The timeout of a call: a slower hint arrives after the poll that it should shorten.
const CALL: Duration = Duration::from_millis(50);
/// The timeout of the login check at start.
const LOGIN: Duration = Duration::from_secs(1);
/// The pause before a lost subscription is renewed.
const AGAIN: Duration = Duration::from_secs(1);

/// Checks the URL of a Redis server; the error repeats nothing of it.
pub fn check_url(url: &str) -> Result<(), String> {
    Client::open(url).map(drop).map_err(|_| "is not a valid Redis URL; give redis://host:port".to_owned())
}

/// Sends and receives hints; without Redis, only in this process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Hints {
    wanted: Arc<Notify>,
    heard: Arc<Notify>,
    changes: Changes,
}

impl Hints {
    /// Sends other processes a hint that outbox rows were committed. Never blocks or fails; merges hints that cannot be sent in
    /// time.
    pub fn committed(&self) {
        self.wanted.notify_one();
    }

    /// Returns the hints about changed orders.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Waits until another process has committed outbox rows. One caller at a time.
    pub async fn heard(&self) {
        self.heard.notified().await;
    }
}

/// Exchanges hints with Redis. Created with its [`Hints`] handle.
#[derive(Debug)]
pub struct HintsTask {
    client: Client,
    /// The channel of hints about outbox rows.
    rows: String,
    /// The channel of hints about orders.
    orders: String,
    /// Identifies this process in its hints, so that it ignores its own.
    owner: String,
    hints: Hints,
    calls: Family<Labels<2>, Counter>,
    received: Counter,
    changes_received: Counter,
    open: Gauge,
    status: Status,
}

impl HintsTask {
    /// Creates the task and its handle. Call once per process: it registers metrics. Processes with the same prefix share hints.
    pub fn new(
        url: &SecretString,
        prefix: &str,
        owner: &str,
        metrics: &Metrics,
        status: &Status,
    ) -> anyhow::Result<(Hints, Self)> {
        let client = Client::open(url.expose_secret()).context("REDIS_URL is not a valid Redis URL")?;
        let hints = Hints { changes: Changes::with_others(), ..Hints::default() };
        let task = Self {
            client,
            rows: format!("{prefix}minishop.outbox"),
            orders: format!("{prefix}minishop.orders"),
            owner: owner.to_owned(),
            hints: hints.clone(),
            calls: metrics.register("redis_calls", "Calls to Redis, by outcome"),
            received: metrics.register("redis_hints_received", "Hints about outbox rows from other processes"),
            changes_received: metrics.register("redis_changed_orders_received", "Changed orders reported by other processes"),
            open: metrics.register("redis_breaker_open", "1 while calls to Redis are paused after errors"),
            status: status.clone(),
        };
        Ok((hints, task))
    }

    /// Fails only if a server answers and refuses the login, which does not pass by itself.
    pub async fn check_login(&self) -> anyhow::Result<()> {
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(LOGIN)).set_response_timeout(Some(LOGIN));
        match self.client.get_multiplexed_async_connection_with_config(&config).await {
            Err(error) if error.kind() == ErrorKind::AuthenticationFailed => {
                anyhow::bail!("error[DEPENDENCY_REFUSED] REDIS_URL: the server refuses this login; check user and password")
            }
            _ => Ok(()),
        }
    }

    /// Exchanges hints until `drain` is cancelled. Redis may be away.
    pub async fn run(self, drain: CancellationToken) -> anyhow::Result<()> {
        let both = async { tokio::join!(self.speak(), self.listen()) };
        tokio::select! { () = drain.cancelled() => {}, _ = both => {} }
        Ok(())
    }

    async fn speak(&self) {
        let mut breaker = Breaker::default();
        let mut connection = None;
        loop {
            let (channel, message) = self.next_message().await;
            if !breaker.allows(Instant::now()) {
                self.count("publish", "skipped");
                continue;
            }
            let outcome = timeout(CALL, self.publish(&mut connection, channel, &message)).await;
            let done = matches!(outcome, Ok(Ok(())));
            if !done {
                tracing::debug!(error = ?outcome, "cannot send a hint");
            }
            self.count("publish", if done { "ok" } else { "failed" });
            if breaker.note(done, Instant::now()) {
                tracing::warn!("Redis does not answer; other processes poll meanwhile");
            }
            self.open.set(i64::from(breaker.is_open()));
        }
    }

    /// Waits for the next message to send.
    async fn next_message(&self) -> (&str, Vec<u8>) {
        tokio::select! {
            () = self.hints.wanted.notified() => (&self.rows, self.owner.as_bytes().to_vec()),
            orders = self.hints.changes.to_announce() => (&self.orders, changes::written(&self.owner, &orders)),
        }
    }

    async fn publish(&self, kept: &mut Option<MultiplexedConnection>, channel: &str, message: &[u8]) -> redis::RedisResult<()> {
        // Taken out: a call that fails or times out drops its connection.
        let mut connection = if let Some(connection) = kept.take() {
            connection
        } else {
            let config = AsyncConnectionConfig::new().set_connection_timeout(Some(CALL)).set_response_timeout(Some(CALL));
            self.client.get_multiplexed_async_connection_with_config(&config).await?
        };
        let () = redis::cmd("PUBLISH").arg(channel).arg(message).query_async(&mut connection).await?;
        *kept = Some(connection);
        Ok(())
    }

    async fn listen(&self) {
        loop {
            let subscribing = timeout(CALL, async {
                let mut subscription = self.client.get_async_pubsub().await?;
                subscription.subscribe(&[&self.rows, &self.orders]).await?;
                redis::RedisResult::Ok(subscription)
            });
            if let Ok(Ok(subscription)) = subscribing.await {
                self.count("subscribe", "ok");
                self.status.note("redis", None);
                // Redis replays no messages: poll once per subscription.
                self.hints.heard.notify_one();
                let mut messages = subscription.into_on_message();
                while let Some(message) = messages.next().await {
                    self.hear(message.get_channel_name(), message.get_payload_bytes());
                }
            } else {
                self.count("subscribe", "failed");
                self.status.note("redis", Some("does not answer; processes poll for each other's events".to_owned()));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Handles a message; our own, which come back too, are ignored.
    fn hear(&self, channel: &str, message: &[u8]) {
        if channel == self.orders {
            let orders = changes::read(message, &self.owner);
            self.changes_received.inc_by(orders.len() as u64);
            if !orders.is_empty() {
                self.hints.changes.heard(orders);
            }
        } else if message != self.owner.as_bytes() {
            self.received.inc();
            self.hints.heard.notify_one();
        }
    }

    fn count(&self, call: &'static str, outcome: &'static str) {
        self.calls.get_or_create(&[("call", call), ("outcome", outcome)]).inc();
    }
}
