//! Handlers: the work on an accepted order before it counts as processed.
//!
//! A handler runs only from the parking lot, after its attempt was counted and committed; `confirm`, which does nothing, also
//! runs set-based in the stream.

mod webhook;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use minishop_core::idempotency::IdempotencyKey;
use minishop_core::ids::{CorrelationId, EventId, OrderId};
use minishop_platform::config::Handling;
use minishop_platform::ctx::Ctx;
use minishop_platform::telemetry::propagation::TraceContext;
use minishop_store::Outage;
use tokio::sync::watch;

pub use webhook::Webhook;

/// An event passed to a handler.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Equal in every attempt, so that a handler can recognize a repetition.
    pub event_id: EventId,
    pub order_id: OrderId,
    pub correlation_id: CorrelationId,
    pub idempotency_key: IdempotencyKey,
    /// Deliveries of one record key come one after the other.
    pub record_key: Bytes,
    /// The event, upcast to the newest version that this worker knows.
    pub envelope: Bytes,
    /// The trace that continues in the handler.
    pub trace: TraceContext,
}

/// The result of handling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handled {
    /// It took effect.
    Done,
    /// It may succeed later: retry with backoff, and not before `retry_after`.
    Failed {
        message: String,
        /// The delay that the handler asked for.
        retry_after: Option<Duration>,
    },
    /// It will never succeed: the event becomes a dead letter.
    Refused { message: String },
    /// Calls are paused, or this one failed in an outage: no attempt is used up.
    Paused,
}

/// The endpoint that a handler calls.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Its address, without a path: paths may hold secrets.
    pub name: String,
    /// The current outage, if there is one.
    pub outage: watch::Receiver<Option<Outage>>,
}

/// A way to handle orders.
#[async_trait]
pub trait Handler: Send + Sync + fmt::Debug {
    /// Handles one event, at least once in all. Calls for one record key never overlap, except for an event that was refused at
    /// first and decodes after a redrive: later ones of its key did not wait for it.
    ///
    /// May panic, and may be dropped before it ends: both count as failures, except when the drain drops it.
    async fn handle(&self, delivery: &Delivery) -> Handled;

    /// Returns how long all calls are paused; `None` when events may be claimed.
    fn paused(&self) -> Option<Duration>;

    /// Returns how many events may be handled at a time.
    fn concurrency(&self) -> usize;

    /// Returns the endpoint that it calls, with its outages; `None` for a handler that calls nothing.
    fn endpoint(&self) -> Option<Endpoint> {
        None
    }

    /// Returns the time limit of one call; the lot cuts off a longer one and counts it as failed.
    fn longest(&self) -> Duration {
        Duration::from_secs(10)
    }
}

/// Handles by confirming: nothing outside has to happen.
#[derive(Debug, Clone, Copy)]
pub struct Confirm;

#[async_trait]
impl Handler for Confirm {
    async fn handle(&self, _: &Delivery) -> Handled {
        Handled::Done
    }

    fn paused(&self) -> Option<Duration> {
        None
    }

    fn concurrency(&self) -> usize {
        32
    }
}

/// Where handling happens.
#[derive(Debug, Clone)]
pub enum HandlerPlace {
    /// In the stream's own transaction, by confirming.
    Stream,
    /// From the lot, by a handler that may fail.
    Lot(Arc<dyn Handler>),
}

impl HandlerPlace {
    /// Returns the place that the configuration names.
    pub fn new(ctx: &Ctx) -> Self {
        match &ctx.config.handling {
            Handling::Confirm => Self::Stream,
            Handling::Webhook(settings) => Self::Lot(Arc::new(Webhook::new(settings, ctx.clock.clone(), &ctx.metrics))),
        }
    }

    /// Returns the handler for events in the lot.
    pub fn handler(&self) -> Arc<dyn Handler> {
        match self {
            Self::Stream => Arc::new(Confirm),
            Self::Lot(handler) => handler.clone(),
        }
    }
}
