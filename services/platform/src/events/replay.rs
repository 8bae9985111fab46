//! Replay: rebuilds the events of stored orders for a consumer that starts late.
//!
//! An order's created event has the same bytes, id and correlation as the first time; its final event has the same envelope under
//! the same id. What the store does not keep is not invented: `tracestate`, and the span of the step that ended the order.

mod publish;

use minishop_core::currency::Currency;
use minishop_core::ids::Ids;
use minishop_core::money;
use minishop_core::order::{Item, Status};
use minishop_store::{NewEvent, Origin, PastOrder, Role};

use crate::config::Config;
use crate::events::created::{CreatedEvents, NewOrderFacts};
use crate::events::status_changed::{OrderRef, StatusEvents};
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
        let order = &origin.order;
        let items: Vec<Item> = serde_json::from_str(&order.items)?;
        let currency = order.currency.as_deref();
        Ok(self.created.event(&NewOrderFacts {
            order_id: order.order_id,
            event_id: origin.created_event_id,
            at: order.created_at,
            client_id: &order.client_id,
            customer_id: &order.customer_id,
            items: &items,
            total_minor: order.total_minor,
            currency,
            scale: Currency::scale_of(currency),
            key: &origin.key,
            correlation_id: &order.correlation_id,
            trace: trace(origin).as_ref(),
        }))
    }

    /// Rebuilds an order's events in order: the created event, then the final one if it is known.
    pub fn events(&self, past: &PastOrder, ids: &dyn Ids) -> anyhow::Result<Vec<NewEvent>> {
        let PastOrder { origin, end } = past;
        let order = &origin.order;
        let mut events = vec![self.created(origin)?];
        if let (Some(end), true) = (end, order.status.is_final()) {
            let subject = OrderRef {
                order_id: order.order_id,
                client_id: &order.client_id,
                customer_id: &order.customer_id,
                total: money::to_major(order.total_minor, Currency::scale_of(order.currency.as_deref())),
                currency: order.currency.as_deref(),
                key: &origin.key,
                correlation_id: &order.correlation_id,
                version: order.version.saturating_sub(1),
            };
            let trace = trace(origin).unwrap_or_else(|| TraceContext::new(ids));
            // Clients cancel through the API; the worker writes the other final events.
            let writer = if order.status == Status::Cancelled { &self.api } else { &self.worker };
            let event = writer.event(&subject, order.status, end.event_id, &end.cause.to_string(), &trace, end.at);
            events.push(NewEvent { topic: self.topic.clone(), ..event });
        }
        Ok(events)
    }
}

/// Returns the trace of the request that created an order.
fn trace(origin: &Origin) -> Option<TraceContext> {
    origin.traceparent.as_deref().and_then(|parent| TraceContext::parse(parent, None))
}
