//! The contracts: the generated messages and services, their canonical JSON, the validators, and every name that
//! goes over a wire. No I/O.

pub mod json;
pub mod wkt;

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
    #[expect(
        clippy::pedantic,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        reason = "generated"
    )]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/minishop.ops.v1.rs"));
        include!(concat!(env!("OUT_DIR"), "/minishop.ops.v1.serde.rs"));
    }
}

/// The events: their messages, how they are written and how they are read.
pub mod events {
    /// Version 1.
    #[expect(
        clippy::all,
        clippy::pedantic,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        reason = "generated"
    )]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/minishop.events.v1.rs"));
        include!(concat!(env!("OUT_DIR"), "/minishop.events.v1.serde.rs"));
    }
}

/// All files of the contracts with everything they import, as a serialised `FileDescriptorSet`: for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
