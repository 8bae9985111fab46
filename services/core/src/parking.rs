//! Codes of the parking lot: why an event was parked, and which failures form a group.

use sha2::{Digest, Sha256};

use crate::codes::codes;

codes! {
    /// The state of a parked event.
    State {
        /// Handling failed; it is retried at a set time.
        Retrying = "retrying",
        /// Behind another event of its key, or in need of a newer worker.
        Waiting = "waiting",
        /// Not retried; an operator redrives or discards it.
        Dead = "dead",
    }
}

codes! {
    /// Why an event is dead.
    DeadCode {
        ValueEmpty = "VALUE_EMPTY",
        ValueTooLarge = "VALUE_TOO_LARGE",
        /// The value is not one JSON object in UTF-8.
        JsonInvalid = "JSON_INVALID",
        /// One of the six keys is missing or malformed.
        EnvelopeInvalid = "ENVELOPE_INVALID",
        /// The topic does not carry this type.
        TypeUnknown = "TYPE_UNKNOWN",
        /// The data breaks the order's rules.
        DataInvalid = "DATA_INVALID",
        /// The known order has other data.
        DataMismatch = "DATA_MISMATCH",
        /// The known order has another client.
        ClientMismatch = "CLIENT_MISMATCH",
        /// The known event has other data.
        DuplicateConflict = "DUPLICATE_CONFLICT",
        /// The client used the idempotency key for another order.
        IdempotencyKeyReused = "IDEMPOTENCY_KEY_REUSED",
        AttemptsExhausted = "ATTEMPTS_EXHAUSTED",
        /// The records at its offset are unreadable; an operator had them skipped.
        RecordUnreadable = "RECORD_UNREADABLE",
        /// The handler's endpoint rejected it for good.
        WebhookRefused = "WEBHOOK_REFUSED",
    }
}

codes! {
    /// The kind of failure that parked an event.
    ErrorClass {
        /// Refused before handling: its bytes, data or identity are wrong. Its key is not parked.
        Refused = "refused",
        /// Held for a newer worker. Not an error.
        Held = "held",
        /// Handling failed and may succeed later: a bounded number of retries.
        Transient = "transient",
        /// The handler refused it: a retry will not help. Its key stays parked.
        Permanent = "permanent",
        /// The handler panicked; counted as a transient failure.
        Panic = "panic",
        /// No outcome: the worker died or its lease expired. Counted as a transient failure.
        Crash = "crash",
    }
}

/// Digests an error to group equal failures. Masks digits: they differ between failures of one fault.
pub fn error_fingerprint(class: ErrorClass, code: &str, message: &str) -> [u8; 32] {
    let masked: String = message.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let mut hash = Sha256::new();
    for part in [class.as_str(), code, &masked] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_that_differ_in_digits_alone_are_one_fault() {
        let of = |message| error_fingerprint(ErrorClass::Refused, "DATA_INVALID", message);
        assert_eq!(of("items[3].qty is wrong"), of("items[7].qty is wrong"));
        assert_ne!(of("items[3].qty is wrong"), of("items[3].price is wrong"));
    }
}
