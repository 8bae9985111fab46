//! The digest under which an event is settled: it distinguishes a copy from another event with the same id.

use minishop_contracts::events::Envelope;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::CreatedEvent;

/// Half digests the record's bytes, half their meaning.
///
/// Either half suffices for a copy. A producer, a mirror or a tool may rewrite the same event: other white space, another order
/// of members, `21.0` for `21`, ids in the other case, members that nobody reads. Equal bytes are the same event also for workers
/// that read other versions of it, and in older rows, whose whole digest is of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventDigest(pub [u8; 32]);

/// The byte at which the meaning's half begins.
const MEANING: usize = 16;

impl EventDigest {
    /// Digests bytes that mean nothing to this worker.
    pub fn of_bytes(value: &[u8]) -> Self {
        Self(Sha256::digest(value).into())
    }

    /// Digests a created event, without its id (the key under which it is settled) and without members that nobody reads.
    pub fn of_created(value: &[u8], envelope: &Envelope<'_>, event: &CreatedEvent) -> Self {
        let mut hash = head("minishop.orders.created", envelope);
        text(&mut hash, event.head.correlation_id.as_str());
        hash.update(event.head.order_id.0.as_bytes());
        hash.update(event.fingerprint.0);
        Self::of_bytes(value).meaning(hash)
    }

    /// Digests an event that only a newer worker can read: all of its data counts.
    pub fn of_newer(value: &[u8], envelope: &Envelope<'_>) -> Self {
        let Ok(data) = serde_json::from_str(envelope.data.get()) else { return Self::of_bytes(value) };
        let mut hash = head(&envelope.r#type, envelope);
        text(&mut hash, &envelope.correlation_id);
        canonical(&mut hash, &data);
        Self::of_bytes(value).meaning(hash)
    }

    /// Returns whether the event settled under the digest `settled` is the same one.
    pub fn is_of(&self, settled: &[u8; 32]) -> bool {
        self.0[..MEANING] == settled[..MEANING] || self.0[MEANING..] == settled[MEANING..]
    }

    fn meaning(mut self, hash: Sha256) -> Self {
        self.0[MEANING..].copy_from_slice(&hash.finalize()[..MEANING]);
        self
    }
}

/// Digests the members that every event has; times to the millisecond.
fn head(of: &str, envelope: &Envelope<'_>) -> Sha256 {
    let mut hash = Sha256::new();
    text(&mut hash, of);
    text(&mut hash, &envelope.idempotency_key);
    hash.update(envelope.occurred_at.to_utc().unwrap_or_default().timestamp_millis().to_be_bytes());
    hash
}

/// Digests the length before the part, so that two events never digest the same bytes.
fn text(hash: &mut Sha256, part: &str) {
    length(hash, part.len());
    hash.update(part);
}

fn length(hash: &mut Sha256, length: usize) {
    hash.update(u64::try_from(length).unwrap_or(u64::MAX).to_be_bytes());
}

/// Digests JSON by meaning: members by name (the parser sorts them), numbers by value.
fn canonical(hash: &mut Sha256, value: &Value) {
    match value {
        Value::Null => hash.update("n"),
        Value::Bool(value) => hash.update(if *value { "t" } else { "f" }),
        Value::Number(number) => {
            hash.update("#");
            // Most readers take a number for a double; beyond 2^53 - 1, where that is inexact, a number keeps its digits.
            let double = number.as_f64().filter(|double| double.abs() <= 9_007_199_254_740_991.0);
            text(hash, &double.map_or_else(|| number.to_string(), |double| double.to_string()));
        }
        Value::String(value) => {
            hash.update("\"");
            text(hash, value);
        }
        Value::Array(list) => {
            hash.update("[");
            length(hash, list.len());
            for value in list {
                canonical(hash, value);
            }
        }
        Value::Object(members) => {
            hash.update("{");
            length(hash, members.len());
            for (name, value) in members {
                text(hash, name);
                canonical(hash, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use minishop_contracts::events::decode_envelope;

    use super::*;

    fn newer(data: &str) -> EventDigest {
        let head = r#""eventId":"e","type":"orders.created.v9","occurredAt":"2026-01-31T12:00:00Z","correlationId":"c""#;
        let event = format!(r#"{{{head},"idempotencyKey":"k","data":{data}}}"#);
        EventDigest::of_newer(event.as_bytes(), &decode_envelope(event.as_bytes()).expect("an envelope"))
    }

    #[test]
    fn data_that_nobody_reads_yet_is_told_apart_by_what_it_says() {
        let first = newer(r#"{"a":[1,{"b":21}],"c":null,"d":"x"}"#);
        for same in [r#"{ "d":"x", "c":null, "a":[1.0,{"b":2.1e1}] }"#, r#"{"a":[1,{"b":21}],"c":null,"d":"\u0078"}"#] {
            assert!(newer(same).is_of(&first.0), "{same}");
        }
        for other in [
            r#"{"a":[1,{"b":22}],"c":null,"d":"x"}"#,
            r#"{"a":[{"b":21},1],"c":null,"d":"x"}"#,
            r#"{"a":[1,{"b":21}],"c":false,"d":"x"}"#,
            r#"{"a":[1,{"b":21}],"d":"x"}"#,
            r#"{"a":[1,{"b":"21"}],"c":null,"d":"x"}"#,
            r#"{"a":[1,{"b":21}],"c":null,"d":"x","e":{}}"#,
        ] {
            assert!(!newer(other).is_of(&first.0), "{other}");
        }
        assert!(!newer(r#"{"a":9007199254740993}"#).is_of(&newer(r#"{"a":9007199254740992}"#).0));
    }

    #[test]
    fn equal_bytes_are_the_same_event_whatever_is_read_of_them() {
        let value = br#"{"eventId":"e"}"#;
        let settled: [u8; 32] = Sha256::digest(value).into();
        let mut read = EventDigest::of_bytes(value);
        read.0[MEANING..].fill(7);
        assert!(read.is_of(&settled) && EventDigest::of_bytes(value).is_of(&read.0));
        assert!(!EventDigest::of_bytes(b"{}").is_of(&settled));
    }
}
