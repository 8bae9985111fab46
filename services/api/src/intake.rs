//! The intake: orders queue, a writer takes whatever came while the last commit ran, and one statement makes them all.
//!
//! There is no timer. Requests hold nothing but the receiving end of an answer, so a client that goes away cancels nothing.

mod queue;
mod refusals;
mod writer;

#[cfg(test)]
mod tests;

use minishop_core::ids::OrderId;
use minishop_core::refusal::Refusal;

pub use queue::Queue;
pub use refusals::{retry_after, store_refusal};
pub use writer::{Committed, HandOver, Writer};

/// How many orders one statement makes at most.
pub const BATCH: usize = 256;
/// How many must wait before a second writer starts: below it, two half-empty statements cost more than one full one.
pub const SECOND_WRITER_FROM: usize = 32;
/// How many writers there are.
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
    /// Whether an earlier request made it.
    pub replayed: bool,
}

/// What becomes of a queued order.
pub type AcceptOutcome = Result<Accepted, Refusal>;
