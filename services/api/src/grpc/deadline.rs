//! The `grpc-timeout` of a call.

use std::time::Duration;

use http::HeaderMap;

use crate::call::LONGEST;

/// Parses how long the caller waits, at most [`LONGEST`]; `None` if the header is absent or malformed.
///
/// The format is one to eight digits and a unit ("gRPC over HTTP2").
pub fn read(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (unit_at, unit) = text.char_indices().next_back()?;
    let digits = &text[..unit_at];
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    let limit = match unit {
        'H' => Duration::from_secs(count * 3600),
        'M' => Duration::from_secs(count * 60),
        'S' => Duration::from_secs(count),
        'm' => Duration::from_millis(count),
        'u' => Duration::from_micros(count),
        'n' => Duration::from_nanos(count),
        _ => return None,
    };
    Some(limit.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(text: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", text.parse().unwrap());
        read(&headers)
    }

    #[test]
    fn timeouts_are_read_in_every_unit_and_capped() {
        assert_eq!(limit("0n"), Some(Duration::ZERO));
        assert_eq!(limit("7u"), Some(Duration::from_micros(7)));
        assert_eq!(limit("5m"), Some(Duration::from_millis(5)));
        assert_eq!(limit("3S"), Some(Duration::from_secs(3)));
        assert_eq!(limit("1M"), Some(LONGEST));
        assert_eq!(limit("99999999H"), Some(LONGEST));
    }

    #[test]
    fn what_is_no_timeout_is_ignored() {
        for other in ["", "S", "1x", "123456789S", "-1S", "1 S", "1.5S"] {
            assert_eq!(limit(other), None, "{other}");
        }
    }
}
