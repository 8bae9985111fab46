//! The messages between the state machine and the task around it.

use minishop_bus::produce::Token;
use minishop_core::ids::EventId;
use minishop_store::{Acknowledged, OutboxRow, Renewal};

use super::shard::Ask;

/// A request to the store.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Want {
    Lead(Renewal),
    /// Read rows, at most this many of each shard.
    Read(Vec<Ask>, usize),
    /// Store the number up to which each shard is published, and remove the rows.
    Acknowledge(Vec<Acknowledged>),
    SetAside(Aside),
}

/// A row that cannot be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Aside {
    pub token: Token,
    pub event_id: EventId,
    pub reason: String,
}

/// The kinds of requests to the store. One of each kind runs at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Job {
    Lead,
    Read,
    Acknowledge,
    SetAside,
}

/// Why a record was not published. In a batch, any record may have caused the failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The record itself can never be published.
    OfRecord(String),
    /// A dead letter is larger than the broker accepts.
    TooLarge,
    /// Its topic does not exist or accepts nothing from this client.
    OfTopic,
}

/// The next row to send, and how.
#[derive(Debug)]
pub(super) struct Sending<'a> {
    pub token: Token,
    pub row: &'a OutboxRow,
    /// Send it without its value: the topic does not accept a dead letter of this size.
    pub without_value: bool,
    /// Send it in a batch of its own, with no other record of its shard in flight.
    pub alone: bool,
}
