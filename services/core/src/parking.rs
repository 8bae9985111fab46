//! The parking lot's words: why an event was set aside, and which failures are the same.

use sha2::{Digest, Sha256};

use crate::refusal::codes;

codes! {
    /// Where a set-aside event stands.
    State {
        /// Handling failed and is tried again at a set time.
        Retrying = "retrying",
        /// Stands behind another event of its key, or needs a newer worker.
        Waiting = "waiting",
        /// Given up; an operator redrives or discards it.
        Dead = "dead",
    }
}

codes! {
    /// Why an event is dead.
    DeadCode {
        /// The record has no value.
        ValueEmpty = "VALUE_EMPTY",
        /// The value is above the limit.
        ValueTooLarge = "VALUE_TOO_LARGE",
        /// The value is not one JSON object in UTF-8.
        JsonInvalid = "JSON_INVALID",
        /// One of the six keys is missing or malformed.
        EnvelopeInvalid = "ENVELOPE_INVALID",
        /// The type is none that this topic carries.
        TypeUnknown = "TYPE_UNKNOWN",
        /// The data breaks the order's rules.
        DataInvalid = "DATA_INVALID",
        /// The order is known with other data.
        DataMismatch = "DATA_MISMATCH",
        /// The order is known with another client.
        ClientMismatch = "CLIENT_MISMATCH",
        /// The event id is known with other data.
        DuplicateConflict = "DUPLICATE_CONFLICT",
        /// The client used the idempotency key for another order.
        IdempotencyKeyReused = "IDEMPOTENCY_KEY_REUSED",
        /// Every attempt failed, or ended its worker.
        AttemptsExhausted = "ATTEMPTS_EXHAUSTED",
        /// The records at its place cannot be read, and an operator has had them stepped over.
        RecordUnreadable = "RECORD_UNREADABLE",
        /// The handler's endpoint refused it for good.
        WebhookRefused = "WEBHOOK_REFUSED",
    }
}

codes! {
    /// What kind of failure set an event aside.
    ErrorClass {
        /// Refused at the gate: its bytes, its data or its identity are wrong. Its key is not parked.
        Refused = "refused",
        /// Held for a newer worker. Not an error.
        Held = "held",
        /// Handling failed and may succeed later: tried again, a bounded number of times.
        Transient = "transient",
        /// The handler refused it: trying again will not help. Its key stays parked.
        Permanent = "permanent",
        /// The handler panicked; counts like a transient failure.
        Panic = "panic",
        /// No outcome came back: the worker died, or held its lease for too long. Counts like a transient failure.
        Crash = "crash",
    }
}

/// Digests an error so that equal failures can be grouped: digits are masked, for they tell apart what is one fault.
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
