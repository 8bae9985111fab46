//! Orders: how they are accepted, cancelled and looked up.

use std::collections::HashMap;

use async_trait::async_trait;
use minishop_core::clock::Timestamp;
use minishop_core::idempotency::{Fingerprint, IdempotencyKey};
use minishop_core::ids::{ClientId, OrderId};
use minishop_core::order::Status;
use minishop_core::order_head::OrderHead;

#[cfg(doc)]
use super::StoreError;
use super::{NewEvent, Result, Transition};

/// A validated order on its way into the store, with the event that announces it.
#[derive(Debug, Clone)]
pub struct NewOrder {
    pub head: OrderHead,
    pub fingerprint: Fingerprint,
    /// The lines: a JSON array of `core::order::Item`.
    pub items: String,
    /// The W3C trace context of the request, if it was traced.
    pub traceparent: Option<String>,
    pub event: NewEvent,
}

/// The columns of an order that never change; a repeated request is answered from them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    pub client_id: ClientId,
    pub key: IdempotencyKey,
    pub order_id: OrderId,
    /// The digest of the command that created it.
    pub fingerprint: Fingerprint,
    pub total_minor: i64,
    pub currency: Option<String>,
}

/// An order as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderRow {
    pub head: OrderHead,
    pub status: Status,
    /// 1 when created, one more with each change of status.
    pub version: i32,
    /// The lines: a JSON array of `core::order::Item`.
    pub items: String,
}

/// Which orders to list: newest first, by keyset on the order id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListQuery {
    pub client_id: ClientId,
    pub customer_id: Option<String>,
    pub status: Option<Status>,
    /// Only orders with a smaller id than the last one of the page before.
    pub before: Option<OrderId>,
    /// Only orders with this id or a greater one: where the scan ends.
    pub down_to: Option<OrderId>,
    /// The most orders to return, 1 to 501.
    pub limit: i64,
}

/// One connection that accepts orders. Owned by one task that is never cancelled.
#[async_trait]
pub trait Intake: Send {
    /// Inserts up to 256 orders and their events in one transaction; returns the outbox number of each order's event.
    ///
    /// `batch` is sorted by (client, key) and holds no key twice. An order that is missing in the answer was not inserted: its
    /// key existed, here or in a concurrent commit; read it with [`Orders::by_keys`]. After [`StoreError::Unknown`] run the same
    /// batch with the same ids again: an order that the first run inserted is then found by key *with its own order id*.
    async fn accept(&mut self, batch: &[NewOrder]) -> Result<HashMap<OrderId, i64>>;
}

/// One connection that cancels orders. Owned by one task that is never cancelled.
#[async_trait]
pub trait Cancels: Send {
    /// Cancels an order in one transaction: changes its status, writes its timeline, appends its event to the outbox, and makes
    /// parked events of it due that are dead or wait for a retry. `detail` is a JSON object for the timeline.
    ///
    /// Returns the event's outbox number, or `None` when the order does not pass the fence. After [`StoreError::Unknown`] run the
    /// same change again: an order that the first run changed is then `None`.
    async fn cancel(&mut self, change: &Transition, detail: &str) -> Result<Option<i64>>;
}

/// An order that has changed since it was last read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The order as it is now.
    pub order: OrderRow,
    /// When it changed, by the clock of the process that changed it; `None` for an order that is still new.
    pub at: Option<Timestamp>,
}

/// Orders: acceptance, cancels, and look-ups of many orders at once. They see every acknowledged write, as [`super::Reads`] do.
#[async_trait]
pub trait Orders: Send + Sync + std::fmt::Debug {
    /// Opens a connection for one intake writer.
    async fn intake(&self) -> Result<Box<dyn Intake>>;
    /// Reads the records of keys; absent keys are left out.
    async fn by_keys(&self, keys: &[(ClientId, IdempotencyKey)]) -> Result<Vec<KeyRecord>>;
    /// Opens a connection for cancelling.
    async fn cancels(&self) -> Result<Box<dyn Cancels>>;
    /// Reads the orders, of any client, whose version is greater than the known one.
    async fn changed(&self, known: &[(OrderId, i32)]) -> Result<Vec<Changed>>;
    /// Checks that the database answers and accepts writes.
    async fn ping(&self) -> Result<()>;
}
