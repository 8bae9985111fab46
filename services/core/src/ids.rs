//! Identifiers: orders, events, clients, keys and correlation.

use std::fmt::{self, Debug, Display};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use crate::clock::Timestamp;

/// Draws the random bits of new identifiers. The lawful source of real randomness is `platform::clock`.
pub trait Ids: Send + Sync + Debug {
    /// Draws the 74 random bits of a `UUIDv7` (and 6 that its layout overwrites).
    fn random(&self) -> [u8; 10];

    /// Draws a number of the whole range, for waits with full jitter.
    fn jitter(&self) -> u32 {
        let [a, b, c, d, ..] = self.random();
        u32::from_be_bytes([a, b, c, d])
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// Makes a `UUIDv7` from a time and random bits (RFC 9562, section 5.7).
            pub fn new(at: Timestamp, random: [u8; 10]) -> Self {
                let millis = u64::try_from(at.timestamp_millis()).unwrap_or_default();
                Self(Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
            }
        }

        impl Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Display::fmt(&self.0, f)
            }
        }
    };
}

uuid_id! {
    /// Names one order.
    OrderId
}
uuid_id! {
    /// Names one repair over dead letters.
    OperationId
}
uuid_id! {
    /// Names one event. All copies of an event carry the same id.
    EventId
}

impl OrderId {
    /// Reads the hyphenated form in either case; `None` for any other spelling (braces, URN, no dashes).
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten().map(Self)
    }
}

impl EventId {
    /// Derives the id of an event from the event that caused it.
    ///
    /// A second try, or a store restored from a backup, makes the same id again: time of the cause, then bits of
    /// SHA-256 over the cause's id and the new event's type, in `UUIDv7` layout.
    pub fn derived(cause: Self, caused_at: Timestamp, event_type: &str) -> Self {
        let digest = Sha256::new().chain_update(cause.0.as_bytes()).chain_update(event_type).finalize();
        let mut random = [0; 10];
        random.copy_from_slice(&digest[..10]);
        Self::new(caused_at, random)
    }

    /// Takes an event id as written by its producer: a UUID as it is, any other text by its digest (`UUIDv8`).
    pub fn from_text(text: &str) -> Self {
        match Uuid::try_parse(text) {
            Ok(uuid) => Self(uuid),
            Err(_) => Self::digest(&[b"event-id", text.as_bytes()]),
        }
    }

    /// Derives the id of a record that names none: the same record, read again, gets the same id.
    pub fn of_record(topic: &str, partition: i32, offset: i64, value: &[u8]) -> Self {
        Self::digest(&[b"record", topic.as_bytes(), &partition.to_be_bytes(), &offset.to_be_bytes(), value])
    }

    fn digest(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part);
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.finalize()[..16]);
        Self(Builder::from_custom_bytes(bytes).into_uuid())
    }
}

/// The authenticated caller: an API key's owner or a token's subject; `anonymous` when authentication is off.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientId(pub String);

impl ClientId {
    /// The client of every request while authentication is off, and of adopted events that name none.
    pub fn anonymous() -> Self {
        Self("anonymous".to_owned())
    }
}

impl Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Follows one business operation through every service: 1–128 characters of `[A-Za-z0-9._:-]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CorrelationId(String);

impl CorrelationId {
    /// Takes a caller's id; `None` when it breaks the rule, so that it is replaced and never logged.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=128).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'));
        fits.then(|| Self(text.to_owned()))
    }

    /// Makes an id of our own.
    pub fn new(at: Timestamp, random: [u8; 10]) -> Self {
        Self(OrderId::new(at, random).to_string())
    }

    /// Takes an event's id for an event whose own correlation id breaks the rule.
    pub fn of_event(event: EventId) -> Self {
        Self(event.to_string())
    }

    /// Reads the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Display for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::from_millis;

    #[test]
    fn a_derived_id_depends_on_cause_and_type_alone() {
        let cause = EventId::from_text("0190163d-8694-739b-aea5-966c26f8ad91");
        let at = from_millis(1_700_000_000_123);
        let first = EventId::derived(cause, at, "orders.processed.v1");
        assert_eq!(first, EventId::derived(cause, at, "orders.processed.v1"));
        assert_ne!(first, EventId::derived(cause, at, "orders.cancelled.v1"));
        assert_eq!(first.0.get_version_num(), 7);
        assert!(first.to_string().starts_with("018bcfe5-687b-7"), "carries the cause's time: {first}");
    }

    #[test]
    fn a_foreign_event_id_is_kept_when_it_is_a_uuid_and_digested_when_it_is_not() {
        let uuid = "a3bb189e-8bf9-3888-9912-ace4e6543002";
        assert_eq!(EventId::from_text(uuid).to_string(), uuid);
        assert_eq!(EventId::from_text("evt-1"), EventId::from_text("evt-1"));
        assert_ne!(EventId::from_text("evt-1"), EventId::from_text("evt-2"));
    }

    #[test]
    fn records_without_an_id_are_told_apart_by_place_and_bytes() {
        let id = EventId::of_record("t", 1, 2, b"x");
        assert_eq!(id, EventId::of_record("t", 1, 2, b"x"));
        assert_ne!(id, EventId::of_record("t", 1, 3, b"x"));
        assert_ne!(id, EventId::of_record("t", 1, 2, b"y"));
    }

    #[test]
    fn order_ids_have_one_spelling_but_either_case() {
        let id = "0190163D-8694-739B-AEA5-966C26F8AD91";
        assert_eq!(OrderId::parse(id).map(|id| id.to_string()), Some(id.to_lowercase()));
        for bad in [
            "",
            "123",
            "{0190163d-8694-739b-aea5-966c26f8ad91}",
            "0190163d8694739baea5966c26f8ad91",
            "urn:uuid:0190163d-8694-739b-aea5-966c26f8ad91",
        ] {
            assert_eq!(OrderId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn correlation_ids_outside_the_rule_are_not_taken() {
        let long = "x".repeat(129);
        for bad in ["", "with blank", "a;b", "{json}", "k\u{e9}", "a\nb", long.as_str()] {
            assert_eq!(CorrelationId::parse(bad), None, "{bad}");
        }
        assert!(CorrelationId::parse(&long[..128]).is_some());
        assert!(CorrelationId::parse("corr-001:a.b_c").is_some());
    }
}
