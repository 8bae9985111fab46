//! What all use cases of the API share.

use std::sync::{Arc, Once};

use minishop_contracts::topics;
use minishop_core::clock::Clock;
use minishop_core::ids::Ids;
use minishop_core::refusal::{Code, Refusal};
use minishop_platform::config::Config;
use minishop_platform::ctx::Ctx;
use minishop_platform::events::created::CreatedEvents;
use minishop_platform::events::status_changed::StatusEvents;
use minishop_platform::relay::Relay;
use minishop_store::{Role, Store};

use crate::cancel::Canceller;
use crate::detached_writes::DetachedWrites;
use crate::intake::{Queue, retry_after};
use crate::metrics::ApiMetrics;
use crate::ops::StatusFeed;
use crate::watch::OrderWatches;

/// The dependencies of the use cases. One per process.
#[derive(Debug)]
pub struct App {
    /// The operator's settings.
    pub config: Arc<Config>,
    /// The source of time.
    pub clock: Arc<dyn Clock>,
    /// The source of randomness.
    pub ids: Arc<dyn Ids>,
    /// The database: reads, and operators' writes.
    pub store: Store,
    /// The outbox relay: its backlog, and the hand-over of orders that are announced again.
    pub relay: Relay,
    /// New orders that wait for an intake writer.
    pub queue: Queue,
    /// Cancels orders.
    pub canceller: Arc<Canceller>,
    /// Runs the writes of cancels and of operators.
    pub detached_writes: DetachedWrites,
    /// Sends the pipeline's status to its subscribers.
    pub status_feed: StatusFeed,
    /// The watches on orders.
    pub watches: OrderWatches,
    /// Builds `orders.created` events.
    pub events: CreatedEvents,
    /// Builds `orders.cancelled` events.
    pub settled: StatusEvents,
    /// The API's metrics.
    pub metrics: ApiMetrics,
    /// Limits the warning about ignored credentials to one per process.
    pub credentials: Once,
}

impl App {
    /// Takes the dependencies from a process's context, and registers the API's metrics.
    pub fn new(
        ctx: &Ctx,
        detached_writes: DetachedWrites,
        canceller: Canceller,
        status_feed: StatusFeed,
        watches: OrderWatches,
    ) -> Self {
        let metrics = ctx.metrics.with(ApiMetrics::register);
        Self {
            config: Arc::clone(&ctx.config),
            clock: Arc::clone(&ctx.clock),
            ids: Arc::clone(&ctx.ids),
            store: ctx.store.clone(),
            relay: ctx.relay.clone(),
            queue: Queue::new(Arc::clone(&ctx.ids), metrics.clone()),
            canceller: Arc::new(canceller),
            detached_writes,
            status_feed,
            watches,
            settled: StatusEvents::new(&ctx.config, Role::Api),
            events: CreatedEvents::new(topics::prefixed(&ctx.config.topic_prefix, topics::CREATED), ctx.config.event_key),
            metrics,
            credentials: Once::new(),
        }
    }

    /// Refuses a new order while the outbox backlog exceeds `outbox_limit_rows` or `outbox_limit_age`.
    pub fn admit(&self) -> Result<(), Refusal> {
        let backlog = self.relay.backlog();
        if backlog.depth <= self.config.outbox_limit_rows && backlog.oldest <= self.config.outbox_limit_age {
            return Ok(());
        }
        let detail = "Too many accepted orders wait to be published; nothing was written, send the request again later.";
        Err(Refusal::new(Code::OutboxFull, detail).after(retry_after(self.ids.as_ref())))
    }
}
