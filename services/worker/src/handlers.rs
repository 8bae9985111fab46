//! Handlers: what is done for an accepted order before it counts as processed.
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
use minishop_platform::store::Outage;
use minishop_platform::telemetry::propagation::TraceContext;
use tokio::sync::watch;

pub use webhook::Webhook;

/// An event on its way to a handler.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The event; the same for every attempt, so that a handler can tell a repetition.
    pub event_id: EventId,
    /// The order it created.
    pub order_id: OrderId,
    /// The correlation id of the order.
    pub correlation_id: CorrelationId,
    /// The key under which the order was created.
    pub idempotency_key: IdempotencyKey,
    /// The record key: deliveries of one key come one after the other.
    pub record_key: Bytes,
    /// The envelope, as the newest version this worker knows.
    pub envelope: Bytes,
    /// The trace that goes on in the handler.
    pub trace: TraceContext,
}

/// What handling came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handled {
    /// It had its effect.
    Done,
    /// It may succeed later: try again, with backoff, and not before the handler asked for it.
    Failed {
        /// One sentence for an operator.
        message: String,
        /// How long the handler asked to be left alone.
        retry_after: Option<Duration>,
    },
    /// It will never succeed: a dead letter.
    Refused {
        /// One sentence for an operator.
        message: String,
    },
    /// Nothing was tried, since every call is paused: no attempt is used up.
    Paused,
}

/// What a handler calls.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Its address, without a path: paths may hold secrets.
    pub name: String,
    /// Why it is left alone, while it is.
    pub outage: watch::Receiver<Option<Outage>>,
}

/// One way to handle orders.
#[async_trait]
pub trait Handler: Send + Sync + fmt::Debug {
    /// Handles one event, at least once in all. Never called for two events of one record key at a time, but for an event that
    /// was refused at first and reads well after a redrive: later ones of its key did not wait for it.
    ///
    /// May be dropped before it has ended, and may panic; either is told as a failure.
    async fn handle(&self, delivery: &Delivery) -> Handled;

    /// Tells how long all calls are paused; `None` when events may be claimed.
    fn paused(&self) -> Option<Duration>;

    /// Tells how many events may be handled at a time.
    fn concurrency(&self) -> usize;

    /// Names the endpoint that it calls, and tells when that is left alone; `None` for a handler that calls nothing.
    fn endpoint(&self) -> Option<Endpoint> {
        None
    }

    /// Tells how long one call may take; the lot cuts off a longer one and counts it as failed.
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
    /// Takes the place that the configuration names.
    pub fn new(ctx: &Ctx) -> Self {
        match &ctx.config.handling {
            Handling::Confirm => Self::Stream,
            Handling::Webhook(settings) => Self::Lot(Arc::new(Webhook::new(settings, ctx.clock.clone(), &ctx.metrics))),
        }
    }

    /// Gives the handler for events that stand in the lot.
    pub fn handler(&self) -> Arc<dyn Handler> {
        match self {
            Self::Stream => Arc::new(Confirm),
            Self::Lot(handler) => handler.clone(),
        }
    }
}
