//! The bus: produce and consume over the Kafka protocol. Only this crate uses `rdkafka`. It does not interpret records.

pub mod consume;
pub mod headers;
pub mod produce;
pub mod topics;

pub use consume::{Consumer, Record, Tail};
pub use headers::{HeaderWriter, Headers};
