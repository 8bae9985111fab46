//! Refusals: a closed list of codes, each with one meaning.

use std::borrow::Cow;
use std::time::Duration;

use crate::codes::codes;
use crate::violation::Violation;

/// A refused request: the code, what to do next, and the wrong fields.
///
/// A refusal never contains database text, a path or a stack trace. Nothing was written unless the code says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", code.as_str())]
pub struct Refusal {
    /// The stable code that programs act on.
    pub code: Code,
    /// One sentence: what the caller should do next.
    pub detail: Cow<'static, str>,
    /// The wrong fields, only with [`Code::ValidationFailed`].
    pub violations: Vec<Violation>,
    /// When to retry, for refusals that pass by themselves.
    pub retry_after: Option<Duration>,
}

codes! {
    /// Why a request was refused.
    Code {
        /// Fields, query parameters or tokens are wrong.
        ValidationFailed = "VALIDATION_FAILED",
        /// The body is not one JSON object in UTF-8.
        JsonInvalid = "JSON_INVALID",
        IdempotencyKeyRequired = "IDEMPOTENCY_KEY_REQUIRED",
        IdempotencyKeyInvalid = "IDEMPOTENCY_KEY_INVALID",
        /// The idempotency key was given twice with different values.
        IdempotencyKeyMismatch = "IDEMPOTENCY_KEY_MISMATCH",
        /// The order does not exist or is another client's: the replies are identical.
        OrderNotFound = "ORDER_NOT_FOUND",
        DeadLetterNotFound = "DEAD_LETTER_NOT_FOUND",
        OperationNotFound = "OPERATION_NOT_FOUND",
        /// The order is processed or failed: it cannot be withdrawn.
        OrderNotCancellable = "ORDER_NOT_CANCELLABLE",
        RouteNotFound = "ROUTE_NOT_FOUND",
        MethodNotAllowed = "METHOD_NOT_ALLOWED",
        /// The first request with this key is still in flight.
        IdempotencyKeyInFlight = "IDEMPOTENCY_KEY_IN_FLIGHT",
        /// The body did not arrive in time.
        RequestTimeout = "REQUEST_TIMEOUT",
        BodyTooLarge = "BODY_TOO_LARGE",
        UriTooLong = "URI_TOO_LONG",
        MediaTypeUnsupported = "MEDIA_TYPE_UNSUPPORTED",
        /// A loopback listener without authentication got a foreign host name.
        HostNotAllowed = "HOST_NOT_ALLOWED",
        /// This client used the key for another command.
        IdempotencyKeyReused = "IDEMPOTENCY_KEY_REUSED",
        /// The queue is full, or the deadline cannot be met.
        Overloaded = "OVERLOADED",
        OutboxFull = "OUTBOX_FULL",
        /// A fault of this service.
        Internal = "INTERNAL",
        /// The database is unreachable, full or read-only; nothing was written.
        StoreUnavailable = "STORE_UNAVAILABLE",
        /// The process is draining; nothing was written.
        ShuttingDown = "SHUTTING_DOWN",
        /// The connection was lost during the commit: the order may exist.
        OutcomeUnknown = "OUTCOME_UNKNOWN",
        /// The deadline passed: the order may exist.
        DeadlineExceeded = "DEADLINE_EXCEEDED",
    }
}

/// Maximum number of violations that a refusal lists, because gRPC trailers are small; `detail` counts them all.
pub const LISTED_VIOLATIONS: usize = 20;

impl Refusal {
    /// Refuses with a code and what to do next.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), violations: Vec::new(), retry_after: None }
    }

    /// Refuses fields: lists the first [`LISTED_VIOLATIONS`], counts all.
    pub fn fields(mut violations: Vec<Violation>) -> Self {
        let count = violations.len();
        let detail = match count {
            1 => "One field is wrong; fix it and send the request again.".to_owned(),
            n if n > LISTED_VIOLATIONS => {
                format!("{n} fields are wrong, the first {LISTED_VIOLATIONS} are listed; fix them and send the request again.")
            }
            n => format!("{n} fields are wrong; fix them and send the request again."),
        };
        violations.truncate(LISTED_VIOLATIONS);
        Self { violations, ..Self::new(Code::ValidationFailed, detail) }
    }

    /// Sets when to retry.
    #[must_use]
    pub fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}

impl Code {
    /// Returns the title for people, the same for every refusal of the code.
    pub const fn title(self) -> &'static str {
        match self {
            Self::ValidationFailed => "The request has invalid fields",
            Self::JsonInvalid => "The body is not one JSON object",
            Self::IdempotencyKeyRequired => "An idempotency key is required",
            Self::IdempotencyKeyInvalid => "The idempotency key is invalid",
            Self::IdempotencyKeyMismatch => "Two different idempotency keys were given",
            Self::OrderNotFound => "There is no such order",
            Self::DeadLetterNotFound => "There is no such dead letter",
            Self::OperationNotFound => "There is no such operation",
            Self::OrderNotCancellable => "The order can no longer be cancelled",
            Self::RouteNotFound => "There is no such path",
            Self::MethodNotAllowed => "The path does not support this method",
            Self::IdempotencyKeyInFlight => "The first request with this key is still running",
            Self::RequestTimeout => "The body did not arrive in time",
            Self::BodyTooLarge => "The body is too large",
            Self::UriTooLong => "The URI is too long",
            Self::MediaTypeUnsupported => "The media type is not supported",
            Self::HostNotAllowed => "The host name is not allowed",
            Self::IdempotencyKeyReused => "The idempotency key was used for another command",
            Self::Overloaded => "The service is overloaded",
            Self::OutboxFull => "Too many events wait to be published",
            Self::Internal => "An internal error of this service",
            Self::StoreUnavailable => "The store is unavailable",
            Self::ShuttingDown => "The service is shutting down",
            Self::OutcomeUnknown => "The outcome is unknown",
            Self::DeadlineExceeded => "The deadline has passed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::violation::FieldCode;

    #[test]
    fn every_code_reads_back_as_itself() {
        for code in Code::ALL {
            assert_eq!(Code::parse(code.as_str()), Some(*code));
        }
    }

    #[test]
    fn a_refusal_lists_twenty_fields_and_counts_them_all() {
        let many =
            (0..50).map(|n| Violation::new(format!("items[{n}].qty"), FieldCode::OutOfRange, "must be at least 1")).collect();
        let refusal = Refusal::fields(many);
        assert_eq!(refusal.violations.len(), 20);
        assert!(refusal.detail.contains("50"), "{}", refusal.detail);
    }
}
