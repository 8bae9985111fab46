//! The contracts: the generated messages and services, their canonical JSON, the validators, and every name used on a wire. No
//! I/O.
//!
//! The path of a command: [`json::decode_command`] (or prost) decodes it, [`Validate::violations`] checks its values, and
//! [`merged`](minishop_core::violation::merged) merges the violations of several checks. The path of an event:
//! [`events::encode_created`] writes it, [`events::decode_envelope`] reads it.

pub mod events;
pub mod headers;
pub mod json;
pub mod key;
pub mod query;
pub mod text;
pub mod topics;
mod validate;
pub mod wkt;

pub use validate::{Path, Validate};

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

/// The operators' service.
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
    pub method: &'static str,
    /// The path template, with request fields in braces by proto name: `/orders/{order_id}`.
    pub path: &'static str,
    /// The gRPC path: `/minishop.orders.v1.OrderService/GetOrder`.
    pub rpc: &'static str,
}

/// Every REST route, as the protos state them.
pub const ROUTES: &[Route] = include!(concat!(env!("OUT_DIR"), "/routes.rs"));

/// All contract files with their imports, as a serialised `FileDescriptorSet`: for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
