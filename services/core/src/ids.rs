//! Identifiers: orders, events, clients, keys and correlation.

use std::fmt::{self, Debug, Display};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use crate::clock::Timestamp;

/// Draws new identifiers. Only `platform::clock` draws real randomness.
pub trait Ids: Send + Sync + Debug {
    /// Draws the 74 random bits of a `UUIDv7` (and 6 that its layout overwrites).
    fn random(&self) -> [u8; 10];

    /// Draws a `UUIDv7` greater than all drawn before, also within a millisecond and after the clock went back: see [`Sequence`].
    fn next(&self, at: Timestamp) -> Uuid;

    /// Draws a number of the full range, for full jitter.
    fn jitter(&self) -> u32 {
        let [a, b, c, d, ..] = self.random();
        u32::from_be_bytes([a, b, c, d])
    }
}

/// The bits of a `UUIDv7` that are not time, version or variant.
const RANDOM_BITS: u32 = 74;

/// Generates increasing ids: RFC 9562, section 6.2, method 2.
///
/// While the clock does not pass the last id's millisecond, the id grows by a random step. After the clock went back, ids
/// therefore carry the last id's time until the clock has caught up.
#[derive(Debug, Default)]
pub struct Sequence(Mutex<u128>);

impl Sequence {
    /// Starts below all ids.
    pub const fn new() -> Self {
        Self(Mutex::new(0))
    }

    /// Returns an id greater than the last one, from a time and random bits.
    pub fn next(&self, at: Timestamp, random: [u8; 10]) -> Uuid {
        let millis = u128::from(u64::try_from(at.timestamp_millis()).unwrap_or_default());
        let random = random.iter().fold(0u128, |bits, byte| bits << 8 | u128::from(*byte));
        // The highest bit stays clear: room for more ids within the millisecond.
        let fresh = millis << RANDOM_BITS | random & ((1 << (RANDOM_BITS - 1)) - 1);
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let goes_on = fresh >> RANDOM_BITS <= *last >> RANDOM_BITS;
        *last = if goes_on { *last + 1 + random % (1 << 32) } else { fresh };
        from_bits(*last)
    }
}

/// Places the freely chosen bits of a `UUIDv7`.
fn from_bits(bits: u128) -> Uuid {
    let (time, high, low) = (bits >> RANDOM_BITS, bits >> 62 & 0xfff, bits & ((1 << 62) - 1));
    Uuid::from_u128(time << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low)
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// Draws a new one, greater than all drawn from `ids` before.
            pub fn draw(ids: &dyn Ids, at: Timestamp) -> Self {
                Self(ids.next(at))
            }

            /// Builds a `UUIDv7` from a time and random bits (RFC 9562, section 5.7).
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
    /// Identifies one order.
    OrderId
}
uuid_id! {
    /// Identifies an operation over dead letters.
    OperationId
}
uuid_id! {
    /// Identifies one event. All copies of an event carry the same id.
    EventId
}

/// Returns whether a text is a UUID of any version with dashes, in lower or upper case.
pub fn is_uuid(text: &str) -> bool {
    hyphenated(text).is_some()
}

fn hyphenated(text: &str) -> Option<Uuid> {
    // Of the spellings that `try_parse` accepts, only the hyphenated one has 36 characters.
    (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten()
}

impl OrderId {
    /// Parses the hyphenated form in either case; `None` for any other spelling (braces, URN, no dashes).
    pub fn parse(text: &str) -> Option<Self> {
        hyphenated(text).map(Self)
    }
}

impl EventId {
    /// Derives the id of an event from the event that caused it.
    ///
    /// A retry, or a store restored from a backup, derives the same id: the time of the cause, then bits of SHA-256 over the
    /// cause's id and the new event's type, in `UUIDv7` layout.
    pub fn derived(cause: Self, caused_at: Timestamp, event_type: &str) -> Self {
        let digest = Sha256::new().chain_update(cause.0.as_bytes()).chain_update(event_type).finalize();
        let mut random = [0; 10];
        random.copy_from_slice(&digest[..10]);
        Self::new(caused_at, random)
    }

    /// Converts an event id as its producer wrote it: a UUID is kept, any other text is digested (`UUIDv8`).
    pub fn from_text(text: &str) -> Self {
        match Uuid::try_parse(text) {
            Ok(uuid) => Self(uuid),
            Err(_) => Self::digest(&[b"event-id", text.as_bytes()]),
        }
    }

    /// Derives the id of a record that has none: the same record, read again, gets the same id.
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

/// The authenticated caller: an API key's owner or a token's subject; `anonymous` while authentication is off.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientId(pub String);

impl ClientId {
    /// Returns the client of all requests while authentication is off, and of adopted events without one.
    pub fn anonymous() -> Self {
        Self("anonymous".to_owned())
    }
}

impl Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Correlates one business operation across all services: 1–128 characters of `[A-Za-z0-9._:-]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CorrelationId(String);

impl CorrelationId {
    /// Parses a caller's id. `None` if it breaks the rule: it is then replaced, never logged.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=128).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'));
        fits.then(|| Self(text.to_owned()))
    }

    /// Generates an id of our own.
    pub fn new(at: Timestamp, random: [u8; 10]) -> Self {
        Self(OrderId::new(at, random).to_string())
    }

    /// Uses the event's id, for an event whose correlation id breaks the rule.
    pub fn of_event(event: EventId) -> Self {
        Self(event.to_string())
    }

    /// Returns the text.
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
    fn ids_of_a_millisecond_grow_and_so_do_those_of_a_clock_that_goes_back() {
        let (ids, at) = (Sequence::new(), 1_700_000_000_123);
        let mut last = Uuid::nil();
        // A second back, forward in small steps, and far ahead; with the greatest and the smallest random bits.
        for (n, millis) in [at, at, at - 1000, at - 1, at, at + 1, at - 3_600_000, at + 9].into_iter().enumerate() {
            for random in [[0xff; 10], [0; 10], [0x5a; 10]] {
                for _ in 0..1000 {
                    let id = ids.next(from_millis(millis), random);
                    assert!(id > last, "{id} after {last}, at step {n}");
                    assert_eq!((id.get_version_num(), id.get_variant()), (7, uuid::Variant::RFC4122));
                    last = id;
                }
            }
        }
        let told = last.get_timestamp().map(|time| time.to_unix());
        assert_eq!(told, Some((1_700_000_000, 132_000_000)), "once the clock has gone on, ids tell its time");
    }

    #[test]
    fn more_ids_fit_in_a_millisecond_than_can_be_drawn() {
        let (ids, at) = (Sequence::new(), from_millis(1_700_000_000_123));
        let first = ids.next(at, [0xff; 10]).as_u128();
        for _ in 0..100_000 {
            ids.next(at, [0xff; 10]);
        }
        assert_eq!(ids.next(at, [0; 10]).as_u128() >> 80, first >> 80, "the time is the same");
    }

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
            "0190163d-8694-739b-aea5-966c26f8ad9g",
            "0190163d-8694-739b-aea50-66c26f8ad91",
        ] {
            assert_eq!(OrderId::parse(bad), None, "{bad}");
            assert!(!is_uuid(bad), "{bad}");
        }
        assert!(is_uuid(id));
        assert!(is_uuid("00000000-0000-0000-0000-000000000000"), "of any version");
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
