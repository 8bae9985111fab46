//! What a record of `orders.created` means, and which events follow from it. `stream` and `lot` share it, so that both
//! read and judge an event alike. Only functions of an event and of the orders in the store belong here: no transaction, no retry,
//! no metric.
//!
//! `decode` reads a record, `upcast` lifts older versions of it, `known` has the orders that it may concern, `judge` decides what
//! to do, and `outgoing` builds the events to publish.

pub(crate) mod decode;
pub(crate) mod judge;
pub(crate) mod known;
pub(crate) mod outgoing;
pub mod upcast;
