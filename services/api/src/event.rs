//! Builds `orders.created` from a call.

use minishop_contracts::key::EventKey;
use minishop_core::clock::Timestamp;
use minishop_core::currency::Currency;
use minishop_core::idempotency::IdempotencyKey;
use minishop_core::ids::{EventId, OrderId};
use minishop_core::order::CreateOrder;
pub use minishop_platform::events::created::FIRST_VERSION;
use minishop_platform::events::created::{CreatedEvents, NewOrderFacts};
use minishop_store::NewEvent;

use crate::call::Call;

/// Builds the events of new orders.
#[derive(Debug)]
pub struct EventWriter(CreatedEvents);

/// The ids and the time of a new order.
#[derive(Debug, Clone, Copy)]
pub struct Birth {
    /// The order.
    pub order_id: OrderId,
    /// Its event.
    pub event_id: EventId,
    /// When it was accepted.
    pub at: Timestamp,
}

impl EventWriter {
    /// Creates a writer for `topic`, prefix included.
    pub fn new(topic: String, key: EventKey) -> Self {
        Self(CreatedEvents::new(topic, key))
    }

    /// Builds the event.
    pub fn created(&self, call: &Call, key: &IdempotencyKey, birth: Birth, order: &CreateOrder) -> NewEvent {
        let currency = order.currency();
        self.0.event(&NewOrderFacts {
            order_id: birth.order_id,
            event_id: birth.event_id,
            at: birth.at,
            client_id: &call.client,
            customer_id: order.customer_id(),
            items: order.items(),
            total_minor: order.total_minor(),
            currency: currency.as_ref().map(Currency::code),
            scale: order.scale(),
            key,
            correlation_id: &call.correlation_id,
            trace: Some(&call.trace),
        })
    }
}
