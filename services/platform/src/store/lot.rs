//! The parking lot: events that were set aside.

use std::collections::HashMap;

use async_trait::async_trait;
use minishop_core::clock::Timestamp;
use minishop_core::ids::{EventId, OrderId};

use super::Result;

/// A dead letter as operators list it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The row's id.
    pub id: i64,
    /// The event's id.
    pub event_id: EventId,
    /// The order it is about.
    pub order_id: Option<OrderId>,
    /// The event's type as written.
    pub event_type: Option<String>,
    /// Where it was read.
    pub position: (String, i32, i64),
    /// The kind of failure.
    pub error_class: String,
    /// The code.
    pub error_code: String,
    /// One sentence.
    pub error_message: String,
    /// How often it was tried.
    pub attempts: i32,
    /// When it failed first.
    pub first_failed_at: Timestamp,
    /// When it failed last.
    pub last_failed_at: Timestamp,
}

/// The parking lot, as operators read it.
#[async_trait]
pub trait Lot: Send + Sync + std::fmt::Debug {
    /// Reads dead letters, newest first, with a smaller id than `before`.
    async fn dead_letters(&self, before: Option<i64>, limit: i64) -> Result<Vec<DeadLetter>>;
    /// Counts the lot's rows by state.
    async fn counts(&self) -> Result<HashMap<minishop_core::parking::State, i64>>;
}
