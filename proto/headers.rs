//! Header names. All are lower case, as HTTP/2 and gRPC metadata require.

/// Headers of HTTP requests and responses, and gRPC metadata.
pub mod http {
    /// Links a request to everything it causes. Accepted if
    /// [`CorrelationId::parse`](minishop_core::ids::CorrelationId::parse) can read it.
    pub const CORRELATION_ID: &str = "x-correlation-id";
    /// Identifies a request, so that a repeated one has no second effect.
    pub const IDEMPOTENCY_KEY: &str = "x-idempotency-key";
    /// [`IDEMPOTENCY_KEY`] under the name of the IETF draft.
    pub const IDEMPOTENCY_KEY_STANDARD: &str = "idempotency-key";
    /// `true` on a response that repeats an earlier one.
    pub const IDEMPOTENT_REPLAYED: &str = "idempotent-replayed";
    /// The caller's trace (W3C Trace Context).
    pub const TRACEPARENT: &str = "traceparent";
    /// The caller's trace state (W3C Trace Context).
    pub const TRACESTATE: &str = "tracestate";
}

/// Headers of Kafka records.
pub mod kafka {
    /// The producer's trace (W3C Trace Context).
    pub const TRACEPARENT: &str = "traceparent";
    /// The producer's trace state (W3C Trace Context).
    pub const TRACESTATE: &str = "tracestate";
    /// The envelope's correlation id.
    pub const CORRELATION_ID: &str = "correlation-id";
    /// The id of the event or request that caused this event.
    pub const CAUSATION_ID: &str = "causation-id";

    /// `CloudEvents` id: the envelope's event id.
    pub const CE_ID: &str = "ce_id";
    /// `CloudEvents` source: which service wrote the event.
    pub const CE_SOURCE: &str = "ce_source";
    /// `CloudEvents` type: the envelope's type.
    pub const CE_TYPE: &str = "ce_type";
    /// `CloudEvents` version, always [`CE_SPECVERSION_1_0`].
    pub const CE_SPECVERSION: &str = "ce_specversion";
    /// `CloudEvents` time: the envelope's time.
    pub const CE_TIME: &str = "ce_time";
    /// `CloudEvents` subject: the order's id.
    pub const CE_SUBJECT: &str = "ce_subject";
    /// `CloudEvents` sequence extension: the order's version, in decimal.
    pub const CE_SEQUENCE: &str = "ce_sequence";
    /// The client that the order belongs to.
    pub const CE_CLIENT: &str = "ce_client";
    /// The version of `CloudEvents` that records follow.
    pub const CE_SPECVERSION_1_0: &str = "1.0";

    /// The topic that a dead letter came from.
    pub const DLQ_TOPIC: &str = "dlq-topic";
    /// The partition that a dead letter came from, in decimal.
    pub const DLQ_PARTITION: &str = "dlq-partition";
    /// The offset that a dead letter had there, in decimal.
    pub const DLQ_OFFSET: &str = "dlq-offset";
    /// The kind of error.
    pub const DLQ_ERROR_CLASS: &str = "dlq-error-class";
    /// The stable error code.
    pub const DLQ_ERROR_CODE: &str = "dlq-error-code";
    /// What went wrong, for a person.
    pub const DLQ_ERROR_MESSAGE: &str = "dlq-error-message";
    /// The number of attempts, in decimal.
    pub const DLQ_ATTEMPTS: &str = "dlq-attempts";
    /// When handling failed first, RFC 3339 in UTC.
    pub const DLQ_FIRST_FAILED: &str = "dlq-first-failed";
    /// When handling failed last, RFC 3339 in UTC.
    pub const DLQ_LAST_FAILED: &str = "dlq-last-failed";
    /// `true` on a dead letter whose original key was null, not merely empty.
    pub const DLQ_KEY_NULL: &str = "dlq-key-null";
    /// The size of the original value in bytes, in decimal, if it did not fit into the record and only the store has it.
    pub const DLQ_VALUE_OMITTED: &str = "dlq-value-omitted";
}
