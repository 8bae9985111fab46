//! MiniShop's outside world, touched once: configuration, telemetry, stores, bus, relay.
//!
//! Other crates use this one for everything that is not a decision. Only `store/` contains SQL, only `bus/` names rdkafka, only
//! `hints` names redis, only `boot` spawns, and only `clock` reads the system's time and randomness.

pub mod admin;
pub mod boot;
pub mod bus;
pub mod clock;
pub mod config;
pub mod crash;
pub mod ctx;
pub mod events;
pub mod hints;
pub mod outbound;
pub mod relay;
pub mod replay;
pub mod serve;
pub mod store;
pub mod telemetry;
