//! Replay: rebuilds the events of stored orders for a consumer that starts late.
//!
//! An order's created event has the same bytes, id and correlation as the first time; its final event has the same envelope under
//! the same id. What the store does not keep is not invented: `tracestate`, and the span of the step that ended the order.

mod publish;

use minishop_core::ids::Ids;
use minishop_core::order::{Item, Status};
use minishop_store::{NewEvent, Origin, PastOrder, Role};

use crate::config::Config;
use crate::events::created::CreatedEvents;
use crate::events::status_changed::{StatusChange, StatusEvents};
use crate::telemetry::propagation::TraceContext;
pub use publish::{Extent, Replay, ReplayError, check_topic};

/// Rebuilds the events of orders, for another topic.
#[derive(Debug)]
pub struct ReplayWriter {
    created: CreatedEvents,
    worker: StatusEvents,
    api: StatusEvents,
    topic: String,
}

impl ReplayWriter {
    /// Prepares for a topic (prefix included).
    pub fn new(config: &Config, topic: &str) -> Self {
        Self {
            created: CreatedEvents::new(topic.to_owned(), config.event_key),
            worker: StatusEvents::new(config, Role::Worker),
            api: StatusEvents::new(config, Role::Api),
            topic: topic.to_owned(),
        }
    }

    /// Rebuilds the created event of an order.
    pub fn created(&self, origin: &Origin) -> anyhow::Result<NewEvent> {
        let items: Vec<Item> = serde_json::from_str(&origin.order.items)?;
        Ok(self.created.event(&origin.order.head, origin.created_event_id, &items, trace(origin).as_ref()))
    }

    /// Rebuilds an order's events in order: the created event, then the final one if it is known.
    pub fn events(&self, past: &PastOrder, ids: &dyn Ids) -> anyhow::Result<Vec<NewEvent>> {
        let PastOrder { origin, end } = past;
        let order = &origin.order;
        let mut events = vec![self.created(origin)?];
        if let (Some(end), true) = (end, order.status.is_final()) {
            let change = StatusChange { order: &order.head, version: order.version.saturating_sub(1), to: order.status };
            let trace = trace(origin).unwrap_or_else(|| TraceContext::new(ids));
            // Clients cancel through the API; the worker writes the other final events.
            let writer = if order.status == Status::Cancelled { &self.api } else { &self.worker };
            let event = writer.event(change, end.event_id, &end.cause.to_string(), &trace, end.at);
            events.push(NewEvent { topic: self.topic.clone(), ..event });
        }
        Ok(events)
    }
}

/// Returns the trace of the request that created an order.
fn trace(origin: &Origin) -> Option<TraceContext> {
    origin.traceparent.as_deref().and_then(|parent| TraceContext::parse(parent, None))
}
