//! The use cases of operators, one file per subject: the business side of a request, for both protocols.
//!
//! A use case takes the `App`, the `Call` and a validated message, and returns a message or a refusal. Commands are written in
//! `detached_writes`, with an entry in the audit. No SQL, no status codes, no wording of refusals.

mod announce;
mod audit;
mod begin;
mod control;
mod dead_letters;
mod status;

pub use announce::{announce, checked as checked_announce};
pub use audit::audit;
pub use begin::{checked as checked_choice, discard, redrive};
pub use control::{control, get, list};
pub use dead_letters::{get as dead_letter, groups as dead_letter_groups, list as dead_letters, parked_keys};
pub use status::status;
