//! Idempotency: the key of a command, and when two commands are equal.

use sha2::{Digest, Sha256};

use crate::clock::Clock;
use crate::ids::{CorrelationId, Ids};
use crate::order::CreateOrder;

/// A client's name for one command: 1–255 characters U+0020–007E but not `"` or `\`, without outer blanks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdempotencyKey(String);

/// Why a header value is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 255 printable ASCII characters without quotes or backslashes")]
pub struct InvalidKey;

impl IdempotencyKey {
    /// Parses a header value; outer blanks are dropped.
    pub fn parse(value: &str) -> Result<Self, InvalidKey> {
        let key = value.trim_matches(' ');
        let fits = (1..=255).contains(&key.len()) && key.bytes().all(|b| matches!(b, 0x20..=0x7e) && b != b'"' && b != b'\\');
        if fits { Ok(Self(key.to_owned())) } else { Err(InvalidKey) }
    }

    /// Parses an `Idempotency-Key` header, which may be in one pair of double quotes (RFC 8941 string).
    pub fn parse_quoted(value: &str) -> Result<Self, InvalidKey> {
        let value = value.trim_matches(' ');
        match value.strip_prefix('"') {
            Some(rest) => Self::parse(rest.strip_suffix('"').ok_or(InvalidKey)?),
            None => Self::parse(value),
        }
    }

    /// Accepts an event's key: any text of 1 to 255 characters without U+0000.
    pub fn of_event(text: &str) -> Result<Self, InvalidKey> {
        let fits = (1..=255).contains(&text.chars().count()) && !text.contains('\0');
        if fits { Ok(Self(text.to_owned())) } else { Err(InvalidKey) }
    }

    /// Generates a key for a client that sent none. It is returned, so that an unknown outcome can be retried.
    pub fn generate(clock: &dyn Clock, ids: &dyn Ids) -> Self {
        Self(CorrelationId::new(clock.now(), ids.random()).as_str().to_owned())
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The digest of a validated command: equal for two commands exactly when they mean the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Digests a command: operation, customer, currency, and every line with its amount in minor units.
    ///
    /// The client and the key are the scope, not the content. Every part is length-prefixed, so no two commands share a digest
    /// input. JSON member order, number spelling and protocol do not matter.
    pub fn of_create(order: &CreateOrder) -> Self {
        let mut hash = Sha256::new_with_prefix(b"minishop.create-order.v1");
        text(&mut hash, order.customer_id());
        text(&mut hash, order.currency().as_ref().map_or("", |c| c.code()));
        length(&mut hash, order.items().len());
        for item in order.items() {
            text(&mut hash, &item.product_id);
            hash.update(item.qty.to_be_bytes());
            hash.update(item.price_minor.to_be_bytes());
        }
        Self(hash.finalize().into())
    }
}

fn text(hash: &mut Sha256, part: &str) {
    length(hash, part.len());
    hash.update(part);
}

/// Writes eight bytes on every machine: fingerprints are compared across builds.
fn length(hash: &mut Sha256, length: usize) {
    hash.update((length as u64).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::Line;

    fn order(customer: &str, lines: &[(&str, i32, f64)], currency: Option<&str>) -> Fingerprint {
        let lines = lines.iter().map(|(p, qty, price)| Line { product_id: (*p).into(), qty: *qty, price: *price }).collect();
        Fingerprint::of_create(&CreateOrder::new(customer.into(), lines, currency).expect("a good order"))
    }

    #[test]
    fn the_fingerprint_changes_with_every_change_of_meaning() {
        let base = order("c1", &[("p1", 2, 10.5), ("p2", 1, 1.0)], None);
        let others = [
            order("c2", &[("p1", 2, 10.5), ("p2", 1, 1.0)], None),
            order("c1", &[("p1", 3, 10.5), ("p2", 1, 1.0)], None),
            order("c1", &[("p1", 2, 10.51), ("p2", 1, 1.0)], None),
            order("c1", &[("p2", 1, 1.0), ("p1", 2, 10.5)], None),
            order("c1", &[("p1", 2, 10.5), ("p2", 1, 1.0)], Some("BRL")),
            order("c1", &[("p1", 2, 10.5)], None),
        ];
        assert!(others.iter().all(|other| *other != base));
        assert_eq!(base, order("c1", &[("p1", 2, 1.05e1), ("p2", 1, 1.0)], None));
    }

    #[test]
    fn the_fingerprint_is_the_same_in_every_release() {
        let printed = format!("{:02x?}", order("c1", &[("p1", 2, 10.5)], None).0).replace(['[', ']', ',', ' '], "");
        assert_eq!(printed, "39117ad21837e3a507c02acaa731d2b3980ede8b156f04c0aecd520db223f402");
    }

    #[test]
    fn the_fingerprint_counts_in_eight_bytes_on_every_machine() {
        let parts: [&[u8]; 9] = [
            b"minishop.create-order.v1",
            &[0, 0, 0, 0, 0, 0, 0, 2],
            b"c1",
            &[0, 0, 0, 0, 0, 0, 0, 0],
            &[0, 0, 0, 0, 0, 0, 0, 1],
            &[0, 0, 0, 0, 0, 0, 0, 2],
            b"p1",
            &2_i32.to_be_bytes(),
            &1_050_i64.to_be_bytes(),
        ];
        let expected: [u8; 32] = Sha256::digest(parts.concat()).into();
        assert_eq!(order("c1", &[("p1", 2, 10.5)], None).0, expected);
    }

    #[test]
    fn keys_are_printable_ascii_of_bounded_length() {
        for good in ["1", "order c1/001;v=2", &"x".repeat(255)] {
            assert_eq!(IdempotencyKey::parse(good).map(|k| k.as_str().to_owned()), Ok(good.to_owned()));
        }
        for bad in ["", "  ", "a\tb", "k\u{e9}", "a\"b", "\"k1", "a\\b", &"x".repeat(256)] {
            assert_eq!(IdempotencyKey::parse(bad), Err(InvalidKey), "{bad}");
        }
    }

    #[test]
    fn the_standard_header_may_quote_its_key_once() {
        assert_eq!(IdempotencyKey::parse_quoted("\"k1\""), IdempotencyKey::parse("k1"));
        assert_eq!(IdempotencyKey::parse_quoted("k1"), IdempotencyKey::parse("k1"));
        for bad in ["\"k1", "k1\"", "\"\"", "\"\"k1\"\""] {
            assert_eq!(IdempotencyKey::parse_quoted(bad), Err(InvalidKey), "{bad}");
        }
    }
}
