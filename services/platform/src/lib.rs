//! What every process needs: configuration, boot, telemetry, serving, the relay.
//!
//! Other crates use this one for everything that is not a decision, a statement or a record. Only `hints` names redis, only `boot`
//! spawns, and only `clock` reads the system's time and randomness.

pub mod admin;
pub mod boot;
pub mod clock;
pub mod config;
pub mod ctx;
pub mod events;
pub mod hints;
pub mod outbound;
pub mod relay;
pub mod serve;
pub mod telemetry;
