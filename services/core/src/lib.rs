//! MiniShop's decisions: what an order is and costs, when two requests are equal, and how a refusal is worded.
//!
//! Everything here is pure, except [`crash`], which ends the process for a test of recovery. Time, randomness and the environment
//! are arguments, so every rule can be tested without a server, a database or a clock.

pub mod backoff;
pub mod chain;
pub mod clock;
mod codes;
pub mod crash;
pub mod currency;
pub mod hex;
pub mod idempotency;
pub mod ids;
pub mod misses;
pub mod money;
pub mod operation;
pub mod order;
pub mod order_head;
pub mod parking;
pub mod position;
pub mod refusal;
pub mod timeline;
pub mod violation;
