//! The timeline of one order.

use async_trait::async_trait;
use minishop_core::clock::Timestamp;
use minishop_core::ids::{ClientId, EventId, OrderId};
use minishop_core::parking::State;

use super::{OrderRow, Result};

/// An order with its trace and the events that announced it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The order as it is now.
    pub order: OrderRow,
    /// The W3C trace context of the request that created it.
    pub traceparent: Option<String>,
    /// The event that announced it.
    pub created_event_id: EventId,
    /// The event that announced its final status.
    pub settled_event_id: Option<EventId>,
    /// Whether it came by an event and not by our own API.
    pub adopted: bool,
}

/// A row of the timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// Rows are written in the order of their ids.
    pub id: i64,
    /// The order's version after it, for a change of status.
    pub version: Option<i32>,
    /// The status, or the kind of a note.
    pub kind: String,
    /// When it happened.
    pub at: Timestamp,
    /// The event that caused it.
    pub cause: EventId,
    /// Details as a JSON object.
    pub detail: Option<String>,
}

/// A parked event of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedState {
    /// The event's id.
    pub event_id: EventId,
    /// Retrying, waiting or dead.
    pub state: State,
    /// Attempts since it was parked or redriven.
    pub attempts: i32,
    /// When it is retried.
    pub next_attempt_at: Option<Timestamp>,
    /// When it was parked.
    pub parked_at: Timestamp,
    /// Whether later events of its key wait for it.
    pub blocks: bool,
    /// The code of the last error.
    pub error_code: Option<String>,
    /// The last error in one sentence.
    pub error_message: Option<String>,
    /// The type that a worker must know to handle it.
    pub needs_type: Option<String>,
}

/// The timeline, as an order's owner reads it.
#[async_trait]
pub trait Timeline: Send + Sync + std::fmt::Debug {
    /// Reads one order of a client; another client's is `None`.
    async fn origin(&self, client: &ClientId, id: OrderId) -> Result<Option<Origin>>;
    /// Reads rows of an order's timeline with an id above `after`, in id order; ids are above 0.
    async fn facts(&self, order: OrderId, after: i64, limit: i64) -> Result<Vec<Fact>>;
    /// Reads the parked events of an order, oldest first.
    async fn standing(&self, order: OrderId, limit: i64) -> Result<Vec<ParkedState>>;
}
