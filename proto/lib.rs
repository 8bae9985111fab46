//! The contracts: the generated messages and services, their canonical JSON, the validators, and every name that goes over
//! a wire. No I/O.
//!
//! The way of a command: [`json::decode_command`] (or prost) makes a message, [`Validate::violations`] says what is wrong
//! with its values, and [`settle`] merges what several checks found. The way of an event: [`events::encode_created`] writes
//! it, [`events::decode_envelope`] reads it.

pub mod events;
pub mod headers;
pub mod json;
pub mod key;
pub mod query;
pub mod text;
pub mod topics;
mod violation;
pub mod wkt;

pub use violation::{FieldCode, Path, Validate, Violation, settle};

/// Accepting and reading orders.
pub mod orders {
    /// Version 1.
    #[expect(
        clippy::all,
        clippy::pedantic,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        reason = "generated"
    )]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/minishop.orders.v1.rs"));
        include!(concat!(env!("OUT_DIR"), "/minishop.orders.v1.serde.rs"));
    }
}

/// What operators see.
pub mod ops {
    /// Version 1.
    #[expect(clippy::pedantic, clippy::allow_attributes, clippy::allow_attributes_without_reason, reason = "generated")]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/minishop.ops.v1.rs"));
        include!(concat!(env!("OUT_DIR"), "/minishop.ops.v1.serde.rs"));
    }
}

/// The validators and JSON tables of all messages.
#[expect(clippy::collapsible_if, clippy::unreadable_literal, reason = "generated")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/validators.rs"));
    include!(concat!(env!("OUT_DIR"), "/shapes.rs"));
}

/// A REST route and the call that answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The HTTP method, in capitals.
    pub method: &'static str,
    /// The path template; a field of the request stands in braces under its proto name: `/orders/{order_id}`.
    pub path: &'static str,
    /// The gRPC path: `/minishop.orders.v1.OrderService/GetOrder`.
    pub rpc: &'static str,
}

/// Every REST route, as the protos state them.
pub const ROUTES: &[Route] = include!(concat!(env!("OUT_DIR"), "/routes.rs"));

/// All files of the contracts with everything they import, as a serialised `FileDescriptorSet`: for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
