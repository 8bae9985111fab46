//! The API over the wire, REST and gRPC, on a store of its own.

#[path = "api/harness.rs"]
mod harness;
#[path = "api/idempotency.rs"]
mod idempotency;
#[path = "api/inputs.rs"]
mod inputs;
#[path = "api/reads.rs"]
mod reads;
