//! What both modes share.

pub mod announcing;
pub mod by_hand;
pub mod checker;
pub mod dead_letters;
pub mod endpoint;
pub mod events;
pub mod group;
pub mod load;
pub mod metrics;
pub mod outbox;
pub mod passing;
pub mod place;
pub mod proxy;
pub mod repair;
pub mod replaying;
pub mod servers;
pub mod shop;
pub mod topics;
