//! The intake: orders queue; a writer takes all that arrived during the last commit and inserts them with one statement.
//!
//! No timer delays a batch. A request holds only the receiver of its answer, so a client that goes away cancels nothing.

mod queue;
mod writer;

#[cfg(test)]
mod tests;

use minishop_core::ids::OrderId;
use minishop_core::refusal::Refusal;

pub use queue::Queue;
pub use writer::{Committed, HandOver, Writer};

/// Maximum number of orders in one statement.
pub const BATCH: usize = 256;
/// The queued orders that start a second writer: with fewer, two half-empty statements cost more than one full one.
pub const SECOND_WRITER_FROM: usize = 32;
/// The number of writers.
pub const WRITERS: usize = 2;

/// An order that is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The order's id.
    pub order_id: OrderId,
    /// The total in minor units.
    pub total_minor: i64,
    /// The currency's code.
    pub currency: Option<String>,
    /// Whether an earlier request created it.
    pub replayed: bool,
}

/// The outcome of a queued order.
pub type AcceptOutcome = Result<Accepted, Refusal>;
