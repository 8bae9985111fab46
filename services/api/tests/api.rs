//! The API over the wire, REST and gRPC, on a store of its own.

#![expect(clippy::unwrap_used, reason = "a test ends where something is wrong")]

#[path = "api/harness.rs"]
mod harness;
#[path = "api/idempotency.rs"]
mod idempotency;
#[path = "api/inputs.rs"]
mod inputs;
#[path = "api/reads.rs"]
mod reads;
