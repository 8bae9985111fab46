//! The intake's refusals.

use std::time::Duration;

use minishop_core::ids::Ids;
use minishop_core::refusal::{Code, Refusal};
use minishop_store::StoreError;

/// Draws the wait of a shed request: one to two seconds, so that clients do not all come back together.
pub fn retry_after(ids: &dyn Ids) -> Duration {
    let [high, low, ..] = ids.random();
    Duration::from_secs(1) + Duration::from_millis(u64::from(u16::from_be_bytes([high, low]) % 1000))
}

/// Converts an error of the store to a refusal, without the database's text.
pub fn store_refusal(error: &StoreError) -> Refusal {
    match error {
        StoreError::Retry { .. } | StoreError::Unknown { .. } => store_unavailable(),
        StoreError::Fail { .. } => internal(),
    }
}

pub fn store_unavailable() -> Refusal {
    Refusal::new(
        Code::StoreUnavailable,
        "The store does not answer; nothing was written, send the request again with the same key.",
    )
}

pub fn internal() -> Refusal {
    Refusal::new(Code::Internal, "This is an internal error; nothing was written, send the request again with the same key.")
}

pub fn outcome_unknown() -> Refusal {
    Refusal::new(
        Code::OutcomeUnknown,
        "The connection to the store was lost during the commit, so the order may exist; send the request again with the same key.",
    )
}

pub fn deadline_exceeded() -> Refusal {
    Refusal::new(Code::DeadlineExceeded, "The deadline passed, so the order may exist; send the request again with the same key.")
}

pub fn in_flight(wait: Duration) -> Refusal {
    let detail = "The first request with this key is still running; send the request again with the same key.";
    Refusal::new(Code::IdempotencyKeyInFlight, detail).after(wait)
}

pub fn reused() -> Refusal {
    Refusal::new(Code::IdempotencyKeyReused, "This key was used for another command; send this command with a new key.")
}

pub fn overloaded(wait: Duration) -> Refusal {
    let detail = "More orders wait than can be written in time; nothing was written, send the request again later.";
    Refusal::new(Code::Overloaded, detail).after(wait)
}

pub fn shutting_down(wait: Duration) -> Refusal {
    let detail = "This process is shutting down; nothing was written, send the request again.";
    Refusal::new(Code::ShuttingDown, detail).after(wait)
}
