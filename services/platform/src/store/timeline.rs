//! What happened to one order.

use async_trait::async_trait;
use minishop_core::clock::Timestamp;
use minishop_core::idempotency::IdempotencyKey;
use minishop_core::ids::{ClientId, EventId, OrderId};
use minishop_core::parking::State;

use super::{OrderRow, Result};

/// An order with the names of where it came from and of what told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The order as it stands.
    pub order: OrderRow,
    /// The key of the request that created it.
    pub key: IdempotencyKey,
    /// The W3C trace context of that request.
    pub traceparent: Option<String>,
    /// The event that announced it.
    pub created_event_id: EventId,
    /// The event that told of its final status.
    pub settled_event_id: Option<EventId>,
    /// Whether it came by an event and not by our own API.
    pub adopted: bool,
}

/// A row of the timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// Its place: rows are written down in this order.
    pub id: i64,
    /// The order's version after it, for a change of status.
    pub version: Option<i32>,
    /// The status, or the word of a note.
    pub kind: String,
    /// When.
    pub at: Timestamp,
    /// The event that caused it.
    pub cause: EventId,
    /// More, as a JSON object.
    pub detail: Option<String>,
}

/// An event of an order that stands in the parking lot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedState {
    /// The event.
    pub event_id: EventId,
    /// Where it stands.
    pub state: State,
    /// How often handling it was tried.
    pub attempts: i32,
    /// When it is tried next.
    pub next_attempt_at: Option<Timestamp>,
    /// When it came there.
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
    /// Reads rows of an order's timeline in their order, behind a place; the first have places above 0.
    async fn facts(&self, order: OrderId, after: i64, limit: i64) -> Result<Vec<Fact>>;
    /// Reads the events of an order that stand in the parking lot now, oldest first.
    async fn standing(&self, order: OrderId, limit: i64) -> Result<Vec<ParkedState>>;
}
