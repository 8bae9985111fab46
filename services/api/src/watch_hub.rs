//! The watches on orders: the hub that requests subscribe to, and the task that reads watched orders from the store.
//!
//! It knows rows and versions. Tokens, messages and what a caller has seen belong to `orders::watch`.

mod hub;
mod metrics;
mod poll;

pub use hub::{OrderWatches, Subscription};
pub use poll::WatchTask;
