//! The events that MiniShop publishes: their values and headers, encoded for the outbox.

pub mod created;
mod headers;
pub mod rebuild;
pub mod replay;
pub mod status_changed;
