//! The bus: produce and consume over the Kafka protocol. The only files that name rdkafka are here.

pub mod consume;
pub mod headers;
pub mod produce;
pub mod topics;

pub use consume::{Consumer, Record, Tail};
pub use headers::{HeaderWriter, Headers};
