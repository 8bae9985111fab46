//! The idempotency key of a call, from either of its headers.

use http::HeaderMap;
use minishop_contracts::headers::http as names;
use minishop_core::idempotency::{IdempotencyKey, InvalidKey};
use minishop_core::refusal::Refusal;

use crate::refusals;

/// Reads the key. It may occur more than once if all values are equal.
pub fn read(headers: &HeaderMap, required: bool) -> Result<Option<IdempotencyKey>, Refusal> {
    let ours = headers.get_all(names::IDEMPOTENCY_KEY).iter().map(|v| v.to_str().map(IdempotencyKey::parse));
    let standard = headers.get_all(names::IDEMPOTENCY_KEY_STANDARD).iter().map(|v| v.to_str().map(IdempotencyKey::parse_quoted));
    let mut found: Option<IdempotencyKey> = None;
    for key in ours.chain(standard) {
        let key = key.unwrap_or(Err(InvalidKey)).map_err(refusals::key_invalid)?;
        match &found {
            Some(first) if *first != key => return Err(refusals::key_mismatch()),
            _ => found = Some(key),
        }
    }
    if found.is_none() && required { Err(refusals::key_required()) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use minishop_core::refusal::Code;

    fn read_of(pairs: &[(&'static str, &[u8])]) -> Result<Option<String>, Code> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        read(&headers, false).map(|key| key.map(|k| k.as_str().to_owned())).map_err(|refusal| refusal.code)
    }

    #[test]
    fn both_names_mean_the_same_key() {
        for pairs in [
            &[("x-idempotency-key", b"k1".as_slice())][..],
            &[("idempotency-key", b"k1")],
            &[("idempotency-key", b"\"k1\"")],
            &[("x-idempotency-key", b"k1"), ("idempotency-key", b"\"k1\""), ("x-idempotency-key", b" k1 ")],
        ] {
            assert_eq!(read_of(pairs), Ok(Some("k1".to_owned())), "{pairs:?}");
        }
        assert_eq!(read_of(&[]), Ok(None));
    }

    #[test]
    fn two_different_keys_are_a_mismatch() {
        assert_eq!(read_of(&[("x-idempotency-key", b"a"), ("idempotency-key", b"b")]), Err(Code::IdempotencyKeyMismatch));
        assert_eq!(read_of(&[("x-idempotency-key", b"a"), ("x-idempotency-key", b"b")]), Err(Code::IdempotencyKeyMismatch));
    }

    #[test]
    fn a_key_that_breaks_its_rule_is_refused() {
        for bad in [&b""[..], b"  ", b"a\tb", "k\u{e9}".as_bytes(), b"a\"b", b"\"k1", b"a\\b", b"\xff", &[b'x'; 256]] {
            assert_eq!(read_of(&[("x-idempotency-key", bad)]), Err(Code::IdempotencyKeyInvalid), "{bad:?}");
        }
    }

    #[test]
    fn an_absent_key_is_refused_only_where_one_is_required() {
        assert_eq!(read(&HeaderMap::new(), true).map_err(|r| r.code), Err(Code::IdempotencyKeyRequired));
    }
}
