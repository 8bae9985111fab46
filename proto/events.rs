//! The event messages, how to encode and how to decode them.

mod kind;
mod read;
mod write;

pub use kind::{CANCELLED_V1, CREATED_UNVERSIONED, CREATED_V1, EventType, FAILED_V1, PROCESSED_V1};
pub use read::{Envelope, EnvelopeError, MAX_VALUE_BYTES, decode_envelope};
pub use write::{EnvelopeFields, encode_created, encode_settled};

/// Version 1.
#[expect(clippy::all, clippy::pedantic, clippy::allow_attributes, clippy::allow_attributes_without_reason, reason = "generated")]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/minishop.events.v1.rs"));
    include!(concat!(env!("OUT_DIR"), "/minishop.events.v1.serde.rs"));
}
