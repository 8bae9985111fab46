//! What every use case of the API works with.

use std::sync::{Arc, Once};

use minishop_contracts::topics;
use minishop_core::clock::Clock;
use minishop_core::ids::Ids;
use minishop_core::refusal::{Code, Refusal};
use minishop_platform::config::Config;
use minishop_platform::ctx::Ctx;
use minishop_platform::events::status_changed::StatusEvents;
use minishop_platform::relay::Relay;
use minishop_platform::store::{Role, Store};

use crate::cancel::Canceller;
use crate::detached_writes::DetachedWrites;
use crate::event::EventWriter;
use crate::intake::{Queue, retry_after};
use crate::metrics::ApiMetrics;
use crate::ops::StatusFeed;
use crate::watch::OrderWatches;

/// The API's outside world. One for each process.
#[derive(Debug)]
pub struct App {
    /// What the operator has set.
    pub config: Arc<Config>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub ids: Arc<dyn Ids>,
    /// The database, for reads.
    pub store: Store,
    /// Tells how much waits to be published.
    pub relay: Relay,
    /// Where new orders wait for a writer.
    pub queue: Queue,
    /// Writes that orders are cancelled.
    pub canceller: Arc<Canceller>,
    /// Where the writes of cancels and of operators wait for the task that runs them.
    pub detached_writes: DetachedWrites,
    /// Sends the pipeline's status to its subscribers.
    pub status_feed: StatusFeed,
    /// Who watches which order.
    pub watches: OrderWatches,
    /// Writes `orders.created`.
    pub events: EventWriter,
    /// Writes `orders.cancelled`.
    pub settled: StatusEvents,
    /// What is counted.
    pub metrics: ApiMetrics,
    /// Warns once that nobody's credentials are looked at.
    pub credentials: Once,
}

impl App {
    /// Takes what the API needs out of a process's context, and registers its metrics.
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
            events: EventWriter::new(topics::prefixed(&ctx.config.topic_prefix, topics::CREATED), ctx.config.event_key),
            metrics,
            credentials: Once::new(),
        }
    }

    /// Sheds a new order while more events wait to be published than the operator allows.
    pub fn admit(&self) -> Result<(), Refusal> {
        let backlog = self.relay.backlog();
        if backlog.depth <= self.config.outbox_limit_rows && backlog.oldest <= self.config.outbox_limit_age {
            return Ok(());
        }
        let detail = "Too many accepted orders wait to be published; nothing was written, send the request again later.";
        Err(Refusal::new(Code::OutboxFull, detail).after(retry_after(self.ids.as_ref())))
    }
}
