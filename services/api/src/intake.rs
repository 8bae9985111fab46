//! The intake: orders queue; a writer takes all that arrived during the last commit and inserts them with one statement.
//!
//! No timer delays a batch. A request holds only the receiver of its answer, so a client that goes away cancels nothing.

mod queue;
mod writer;

#[cfg(test)]
mod tests;

pub use queue::{Accepted, Queue};
pub use writer::{WRITERS, Writer};
