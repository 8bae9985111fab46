//! The dependencies that all use cases of the API share. Use cases import this file; no file that it imports may import it.

use std::sync::{Arc, Once};

use http::HeaderMap;
use http::header::AUTHORIZATION;
use minishop_contracts::topics;
use minishop_core::clock::Clock;
use minishop_core::idempotency::IdempotencyKey;
use minishop_core::ids::Ids;
use minishop_core::refusal::Refusal;
use minishop_platform::config::Config;
use minishop_platform::ctx::{Commits, Ctx};
use minishop_platform::events::created::CreatedEvents;
use minishop_platform::events::status_changed::StatusEvents;
use minishop_platform::relay::Relay;
use minishop_store::{Role, Store};

use crate::call::Call;
use crate::canceller::Canceller;
use crate::detached_writes::DetachedWrites;
use crate::intake::Queue;
use crate::metrics::ApiMetrics;
use crate::protocol::Protocol;
use crate::status_feed::StatusFeed;
use crate::watch_hub::OrderWatches;

/// The dependencies of the use cases. One per process.
#[derive(Debug)]
pub struct App {
    pub config: Arc<Config>,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn Ids>,
    pub store: Store,
    /// The outbox relay, for its backlog.
    pub relay: Relay,
    /// Reports the commits that announce orders again.
    pub commits: Commits,
    pub queue: Queue,
    pub canceller: Arc<Canceller>,
    pub detached_writes: DetachedWrites,
    pub status_feed: StatusFeed,
    pub watches: OrderWatches,
    pub created_events: CreatedEvents,
    pub status_events: StatusEvents,
    pub metrics: ApiMetrics,
    /// Limits the warning about ignored credentials to one per process.
    credentials: Once,
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
        let metrics = ApiMetrics::register(&ctx.metrics);
        let created = topics::prefixed(&ctx.config.topic_prefix, topics::CREATED);
        Self {
            config: Arc::clone(&ctx.config),
            clock: Arc::clone(&ctx.clock),
            ids: Arc::clone(&ctx.ids),
            store: ctx.store.clone(),
            relay: ctx.relay.clone(),
            commits: ctx.commits(),
            queue: Queue::new(Arc::clone(&ctx.ids), metrics.clone()),
            canceller: Arc::new(canceller),
            detached_writes,
            status_feed,
            watches,
            created_events: CreatedEvents::new(created, ctx.config.event_key),
            status_events: StatusEvents::new(&ctx.config, Role::Api),
            metrics,
            credentials: Once::new(),
        }
    }

    /// Begins a call: reads its headers or gRPC metadata. `operation` is the route or method, as named in traces.
    pub fn call(&self, protocol: Protocol, operation: &'static str, headers: &HeaderMap) -> Call {
        if headers.contains_key(AUTHORIZATION) {
            self.credentials
                .call_once(|| tracing::warn!("a request carries credentials, but authentication is off; all are anonymous"));
        }
        Call::new(self.clock.as_ref(), self.ids.as_ref(), protocol, operation, headers)
    }

    /// Sets and returns the call's idempotency key: the caller's, or a new one if none was sent and none is required.
    pub fn take_key(&self, call: &mut Call, headers: &HeaderMap) -> Result<IdempotencyKey, Refusal> {
        let new = || IdempotencyKey::generate(self.clock.as_ref(), self.ids.as_ref());
        call.take_key(headers, self.config.require_idempotency_key, new)
    }
}
