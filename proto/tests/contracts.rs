//! Tests of the contracts through their public interface.

mod commands;
mod envelopes;
mod generated;
mod properties;
mod queries;
mod support;
