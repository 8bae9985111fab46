//! The event log as clients see it on the wire, and its file after crashes and damage.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_groups;
mod bad_records;
mod bad_requests;
mod batch;
mod child;
mod disk;
mod fetches;
mod fixture;
mod forgetting;
mod raw;
mod restart;
mod retention;
mod static_members;
mod system;
mod unreadable;
