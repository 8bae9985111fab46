//! The refusals of the API: one constructor for each, with its code and its wording. No other file of this crate words a refusal.
//!
//! A refusal's detail is one sentence and ends with what to do next. The checks of a message word what is wrong with a field.

use std::time::Duration;

use minishop_contracts::json::Syntax;
use minishop_core::idempotency::InvalidKey;
use minishop_core::ids::Ids;
use minishop_core::order::Status;
use minishop_core::refusal::{Code, Refusal};
use minishop_core::violation::{FieldCode, Violation, merged};
use minishop_store::StoreError;

use crate::protocol::Protocol;

/// Defines constructors with a constant wording; those with `wait` tell when to retry.
macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident($($wait:ident)?): $code:ident, $detail:literal;)+) => {
        $($(#[$doc])*
        pub fn $name($($wait: Duration)?) -> Refusal {
            Refusal::new(Code::$code, $detail)$(.after($wait))?
        })+
    };
}

// What arrived.
constructors! {
    route_not_found(): RouteNotFound, "No route has this path; check its spelling and the slash at its end.";
    method_not_allowed(): MethodNotAllowed, "The header `allow` lists the methods that this path supports.";
    host_not_allowed(): HostNotAllowed, "This listener serves localhost only; use that name.";
    media_type_unsupported(): MediaTypeUnsupported, "Send the body as application/json in UTF-8, without content-encoding.";
    body_incomplete(): JsonInvalid, "The body ended early; send it again.";
    key_required(): IdempotencyKeyRequired,
        "Send a key of your choice in x-idempotency-key and the same key when you retry.";
    key_mismatch(): IdempotencyKeyMismatch,
        "The idempotency key is given more than once with different values; send one key, in one header.";
}

// What the request meets.
constructors! {
    key_reused(): IdempotencyKeyReused, "This key was used for another command; send this command with a new key.";
    key_in_flight(wait): IdempotencyKeyInFlight,
        "The first request with this key is still running; send the request again with the same key.";
    /// The order is absent or another client's; callers cannot distinguish the two.
    order_not_found(): OrderNotFound, "There is no order with this id that you may see; check the id.";
    dead_letter_not_found(): DeadLetterNotFound, "There is no dead letter with this id; list them to find its id.";
    operation_not_found(): OperationNotFound, "There is no operation with this id; list them to find its id.";
}

// Load, drains and the store.
constructors! {
    outbox_full(wait): OutboxFull,
        "Too many accepted orders wait to be published; nothing was written, send the request again later.";
    too_many_orders(wait): Overloaded,
        "More orders wait than can be written in time; nothing was written, send the request again later.";
    too_many_writes(wait): Overloaded,
        "Too many requests wait to be written; nothing was written, send the request again later.";
    too_many_watches(wait): Overloaded,
        "This process has too many open watches; watch again later, or read the order from time to time.";
    too_many_subscribers(wait): Overloaded,
        "This process has too many status subscribers; subscribe again later, or read the status from time to time.";
    /// A write meets a drain.
    shutting_down(wait): ShuttingDown, "This process is shutting down; nothing was written, send the request again.";
    /// A watch or a subscription meets a drain.
    watch_ended(wait): ShuttingDown,
        "This process is shutting down; watch again with the last version that you have seen as resume token.";
    store_unavailable(): StoreUnavailable,
        "The store does not answer; nothing was written, send the request again with the same key.";
    internal(): Internal, "This is an internal error; nothing was written, send the request again with the same key.";
    cancel_unavailable(): StoreUnavailable,
        "The store does not answer; the order was not cancelled, send the request again.";
    cancel_internal(): Internal, "This is an internal error; the order was not cancelled, send the request again.";
    read_late(): DeadlineExceeded, "The deadline passed before the store answered; try again.";
}

/// Draws the wait of a refusal that passes by itself: one to two seconds, so that clients do not all come back together.
pub fn retry_after(ids: &dyn Ids) -> Duration {
    let [high, low, ..] = ids.random();
    Duration::from_secs(1) + Duration::from_millis(u64::from(u16::from_be_bytes([high, low]) % 1000))
}

/// The path with its query exceeds `limit` bytes.
pub fn uri_too_long(limit: usize) -> Refusal {
    Refusal::new(Code::UriTooLong, format!("Path and query may have at most {limit} bytes; shorten them."))
}

/// The body exceeds `limit` bytes.
pub fn body_too_large(limit: usize) -> Refusal {
    Refusal::new(Code::BodyTooLarge, format!("A body may have at most {limit} bytes; send less."))
}

/// The body was not complete within `limit`.
pub fn body_late(limit: Duration) -> Refusal {
    let seconds = limit.as_secs();
    let detail = format!("The body did not arrive within {seconds} seconds; send the request again with the same key.");
    Refusal::new(Code::RequestTimeout, detail)
}

/// The body is not one JSON object.
pub fn json_invalid(at: &Syntax) -> Refusal {
    let detail = format!("Line {}, column {}: {}; fix the body and send it again.", at.line, at.column, at.message);
    Refusal::new(Code::JsonInvalid, detail)
}

/// The idempotency key breaks `rule`.
pub fn key_invalid(rule: InvalidKey) -> Refusal {
    Refusal::new(Code::IdempotencyKeyInvalid, format!("The idempotency key {rule}; fix it and send the request again."))
}

/// Fields are wrong; they have JSON names for REST, proto names for gRPC.
pub fn fields(protocol: Protocol, found: Vec<Violation>) -> Refusal {
    let mut violations = merged(found);
    if protocol == Protocol::Rest {
        for violation in &mut violations {
            violation.field = violation.json_field();
        }
    }
    Refusal::fields(violations)
}

/// The page token is malformed or belongs to another list.
pub fn page_token_invalid(protocol: Protocol) -> Refusal {
    field(protocol, "page_token", FieldCode::InvalidToken, "must be a page token of this list")
}

/// The resume token is not a version.
pub fn resume_token_invalid(protocol: Protocol) -> Refusal {
    field(protocol, "resume_token", FieldCode::InvalidToken, "must be the last version that you have seen")
}

/// An operation's control request names no action.
pub fn action_required(protocol: Protocol) -> Refusal {
    field(protocol, "action", FieldCode::Required, "must be given")
}

fn field(protocol: Protocol, name: &'static str, code: FieldCode, message: &'static str) -> Refusal {
    fields(protocol, vec![Violation::new(name, code, message)])
}

/// A cancel found the order in `status`, which is not `cancelled`.
pub fn order_not_cancellable(status: Status) -> Refusal {
    let detail = match status {
        Status::Created => {
            let detail = "The order was changed and changed back, as by a restore of the store; send the request again.";
            return Refusal::new(Code::StoreUnavailable, detail);
        }
        Status::Failed => "The order has failed; there is nothing left to cancel.",
        Status::Processed | Status::Cancelled => "The order is processed; it can no longer be cancelled.",
    };
    Refusal::new(Code::OrderNotCancellable, detail)
}

/// The store failed, and nothing was written. The refusal contains nothing of the database's text.
pub fn store(error: &StoreError) -> Refusal {
    match error {
        StoreError::Retry { .. } | StoreError::Unknown { .. } => store_unavailable(),
        StoreError::Fail { .. } => internal(),
    }
}

/// What may have happened if the outcome of a write is unknown, and what to do.
#[derive(Debug, Clone, Copy)]
pub enum Doubt {
    Create,
    Cancel,
    /// An operator's command.
    Command,
}

impl Doubt {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "the order may exist; send the request again with the same key",
            Self::Cancel => "the order may have been cancelled; send the request again",
            Self::Command => "it may have taken effect; check before you send the request again",
        }
    }
}

/// The connection was lost during the commit.
pub fn outcome_unknown(doubt: Doubt) -> Refusal {
    let detail = format!("The connection to the store was lost during the commit, so {}.", doubt.as_str());
    Refusal::new(Code::OutcomeUnknown, detail)
}

/// The deadline of a write passed before its outcome was known.
pub fn write_late(doubt: Doubt) -> Refusal {
    Refusal::new(Code::DeadlineExceeded, format!("The deadline passed, so {}.", doubt.as_str()))
}
