//! The bus: produce and consume over the Kafka protocol. Only this crate uses rdkafka; what a record means is not decided here.

pub mod consume;
pub mod headers;
pub mod produce;
pub mod topics;

pub use consume::{Consumer, Record, Tail};
pub use headers::{HeaderWriter, Headers};
