//! What the machine asks of the store, and what it is told of records.

use minishop_core::ids::EventId;

use super::shard::{Ask, Token};
use crate::store::{Acknowledged, OutboxRow};

/// What is to be asked of the store.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// Renew leases, and take these anew.
    Lead(Vec<i16>),
    /// Read rows, at most so many of each shard.
    Read(Vec<Ask>, usize),
    /// Store what is published.
    Acknowledge(Vec<Acknowledged>),
    /// Keep a row that cannot be published.
    SetAside(Aside),
}

/// A row that cannot be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Aside {
    pub token: Token,
    pub event_id: EventId,
    pub reason: String,
}

/// A question to the store; one of each kind runs at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Job {
    Lead,
    Read,
    Acknowledge,
    SetAside,
}

/// Why a record was not published. What is said of a record among others may be true of another one of its batch only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The record itself can never be published.
    OfRecord(String),
    /// A dead letter is larger than the broker takes.
    TooLarge,
    /// Its topic is not there or takes nothing from us.
    OfTopic,
}

/// The next row to send, and how.
#[derive(Debug)]
pub(super) struct Sending<'a> {
    pub token: Token,
    pub row: &'a OutboxRow,
    /// Without its value: the topic does not take a dead letter of its size.
    pub without_value: bool,
    /// In a batch of its own, with nothing of its shard before or behind it.
    pub alone: bool,
}
