//! Numbers by the digits that were written, not by the nearest double.
//!
//! A double preserves any decimal of up to 15 digits. A longer one may round to the double of a shorter one:
//! `10.4999999999999999999999` to that of 10.5, `1e-400` to 0. Such a number is read as the adjacent double on its own side.
//! No decimal of up to 15 digits is that close (they are more than four doubles apart), so a later check of the digits sees that
//! there were more.

use std::borrow::Cow;
use std::cmp::Ordering;

/// Maximum number of digits of a decimal that a double always preserves.
const EXACT_DIGITS: usize = 15;

/// Parses a number of JSON's grammar. The result equals a number of at most 15 digits only if the written digits do.
pub(super) fn double(text: &str) -> Option<f64> {
    let nearest: f64 = text.parse().ok()?;
    if !nearest.is_finite() || !may_be_rounded(text) {
        return Some(nearest);
    }
    let (written, read) = (Decimal::of(text), Decimal::of(&format!("{nearest:e}")));
    if read.digits.len() > EXACT_DIGITS {
        return Some(nearest);
    }
    let beside = match written.cmp(&read) {
        Ordering::Equal => nearest,
        Ordering::Less => f64::from_bits(nearest.to_bits() - 1),
        Ordering::Greater => f64::from_bits(nearest.to_bits() + 1),
    };
    // A nonzero number must not become zero, nor a finite one infinite.
    let lost = (beside == 0.0 && nearest != 0.0) || !beside.is_finite();
    Some(if lost { nearest } else { beside })
}

/// Returns whether a text is a number of JSON's grammar (RFC 8259, section 6).
pub(super) fn is_json_number(text: &str) -> bool {
    fn digits(text: &[u8]) -> usize {
        text.iter().take_while(|b| b.is_ascii_digit()).count()
    }
    let mut rest = text.as_bytes();
    rest = rest.strip_prefix(b"-").unwrap_or(rest);
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest[0] == b'0') {
        return false;
    }
    rest = &rest[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let count = digits(fraction);
        if count == 0 {
            return false;
        }
        rest = &fraction[count..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = match exponent {
            [b'+' | b'-', unsigned @ ..] => unsigned,
            _ => exponent,
        };
        return !exponent.is_empty() && digits(exponent) == exponent.len();
    }
    rest.is_empty()
}

/// Rewrites the numbers of a JSON text that a reader of doubles would round to shorter ones. Most texts have none.
///
/// Whole numbers stay: an amount long enough to be rounded is out of range.
pub fn exact_numbers(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let (mut out, mut copied, mut at) = (String::new(), 0, 0);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => at = end_of_string(bytes, at),
            b'-' | b'0'..=b'9' => {
                let end = end_of_number(bytes, at);
                if let Some(exact) = rewritten(&text[at..end]) {
                    out.push_str(&text[copied..at]);
                    out.push_str(&exact);
                    copied = end;
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

/// Returns another text for a number that readers would round to a shorter one.
fn rewritten(number: &str) -> Option<String> {
    if !may_be_rounded(number) || !is_json_number(number) {
        return None;
    }
    let exact = double(number)?;
    (number.parse() != Ok(exact)).then(|| format!("{exact:e}"))
}

/// Returns whether a number is so long, or has an exponent, that its double may be that of a shorter number.
fn may_be_rounded(number: &str) -> bool {
    let exponent = number.contains(['e', 'E']);
    exponent || (number.contains('.') && number.bytes().filter(u8::is_ascii_digit).count() > EXACT_DIGITS)
}

fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn end_of_number(bytes: &[u8], start: usize) -> usize {
    let part = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
    start + bytes[start..].iter().take_while(part).count()
}

/// The exact absolute value of a number: `0.DIGITS` times ten to the power of `point`. Zero has no digits.
struct Decimal {
    digits: Vec<u8>,
    point: i64,
}

impl Decimal {
    /// Parses a number of JSON's grammar, without its sign.
    fn of(text: &str) -> Self {
        let size = text.trim_start_matches('-');
        let (mantissa, exponent) = size.split_once(['e', 'E']).unwrap_or((size, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        let leading = all.iter().take_while(|digit| **digit == b'0').count();
        let trailing = all[leading..].iter().rev().take_while(|digit| **digit == b'0').count();
        let digits = all[leading..all.len() - trailing].to_vec();
        let length = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        // An exponent beyond 64 bits outweighs the digits of any text.
        let far = if exponent.starts_with('-') { i64::MIN / 2 } else { i64::MAX / 2 };
        let exponent = exponent.parse().unwrap_or(far).clamp(i64::MIN / 2, i64::MAX / 2);
        let point = if digits.is_empty() { 0 } else { exponent + length(whole.len()) - length(leading) };
        Self { digits, point }
    }

    fn cmp(&self, other: &Self) -> Ordering {
        match (self.digits.is_empty(), other.digits.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => self.point.cmp(&other.point).then_with(|| self.digits.cmp(&other.digits)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The shortest decimal text of the double that is read.
    fn read(text: &str) -> String {
        double(text).expect("a number").to_string()
    }

    #[test]
    fn digits_that_a_double_would_drop_are_seen() {
        for (text, shown) in [
            ("10.4999999999999999999999", "10.499999999999998"),
            ("10.5000000000000000000001", "10.500000000000002"),
            ("-10.4999999999999999999999", "-10.499999999999998"),
            ("1050000000000000000000001e-23", "10.500000000000002"),
            ("0.10000000000000000555111512312578270211815834045410156250", "0.10000000000000002"),
        ] {
            assert_eq!(read(text), shown, "{text}");
        }
        for tiny in ["1e-400", "0.1e-99999999999999999999", "1e-9223372036854775808", "4e-324"] {
            assert!(double(tiny).expect("a number") > 0.0, "{tiny}");
        }
        assert!(double("-1e-400").expect("a number") < 0.0);
    }

    #[test]
    fn other_spellings_of_a_number_are_that_number() {
        for text in ["10.5", "1.05e1", "10.500000000000000000000000", "0.00105E+4", "1050000000000000000000000e-23"] {
            assert_eq!(read(text), "10.5", "{text}");
        }
        for zero in ["0e-400", "0.000000000000000000000e99999999999999999999", "-0.0e5"] {
            assert_eq!(double(zero), Some(0.0), "{zero}");
        }
        assert_eq!(double("0.30000000000000004"), Some(0.300_000_000_000_000_04), "a double's own shortest text");
        assert_eq!(double("1e400"), Some(f64::INFINITY));
    }

    #[test]
    fn only_numbers_outside_of_texts_are_rewritten() {
        let same = r#"{"a":"1e-400","b\"1e-400":[1.5,-2,1e2,12345678901234567890],"c":0.30000000000000004}"#;
        assert!(matches!(exact_numbers(same), Cow::Borrowed(_)), "{:?}", exact_numbers(same));
        assert_eq!(
            exact_numbers(r#"[1e-400, "1e-400", 10.4999999999999999999999]"#),
            r#"[5e-324, "1e-400", 1.0499999999999998e1]"#
        );
        for broken in ["1e", "1.5.5e1", "\"", "\"\\", "-", "\u{e9}1e-400.", "1e-400e"] {
            assert_eq!(exact_numbers(broken), broken);
        }
    }

    proptest! {
        #[test]
        fn a_doubles_own_text_is_that_double(value in any::<f64>().prop_filter("finite", |v| v.is_finite())) {
            prop_assert_eq!(double(&format!("{value:e}")), Some(value));
            prop_assert_eq!(double(&format!("{value}")), Some(value));
        }

        #[test]
        fn more_digits_than_fifteen_never_read_as_fifteen(minor in 1_i64..=999_999_999_999_999, places in 0_usize..=4, tail in "[0-9]{0,30}[1-9]") {
            // Each amount with more digits after it, and the nines just below it.
            let amount = |minor: i64| {
                let digits = format!("{minor:0>width$}", width = places + 1);
                let (whole, fraction) = digits.split_at(digits.len() - places);
                format!("{whole}.{fraction}")
            };
            let nines = "9".repeat(25);
            for (text, amount) in [
                (format!("{}{tail}", amount(minor)), amount(minor)),
                (format!("{}{nines}", amount(minor - 1)), amount(minor)),
            ] {
                let amount: f64 = amount.trim_end_matches('.').parse().expect("a number");
                prop_assert_ne!(double(&text), Some(amount), "{}", text);
            }
        }
    }
}
