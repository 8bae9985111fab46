//! The contracts from outside: what goes in, what comes out.

mod commands;
mod envelopes;
mod generated;
mod properties;
mod queries;
mod support;
