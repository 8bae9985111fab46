//! Writes canonical proto3 JSON.

use std::io;

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter};

/// Writes a message as canonical proto3 JSON: whole numbers without a fraction (`21`), others in their shortest form (`10.5`).
pub fn to_vec<T: Serialize + ?Sized>(message: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    append(&mut out, message);
    out
}

/// Appends a message to `out`, written as by [`to_vec`].
pub fn append<T: Serialize + ?Sized>(out: &mut Vec<u8>, message: &T) {
    message
        .serialize(&mut serde_json::Serializer::with_formatter(out, ProtoFormat))
        .expect("our messages have text keys, and a Vec takes every byte");
}

/// Prints a whole double as `21`, where `serde_json` would print `21.0`.
struct ProtoFormat;

impl Formatter for ProtoFormat {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        // Below 10^15 a double holds every whole number exactly.
        if value.fract() == 0.0 && value.abs() < 1e15 {
            #[expect(clippy::cast_possible_truncation, reason = "whole and below 10^15, see above")]
            CompactFormatter.write_i64(writer, value as i64)
        } else {
            CompactFormatter.write_f64(writer, value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(value: f64) -> String {
        String::from_utf8(to_vec(&value)).expect("JSON is UTF-8")
    }

    #[test]
    fn numbers_print_as_short_as_they_can() {
        assert_eq!(printed(21.0), "21");
        assert_eq!(printed(10.5), "10.5");
        assert_eq!(printed(0.0), "0");
        assert_eq!(printed(-0.0), "0");
        assert_eq!(printed(0.01), "0.01");
        assert_eq!(printed(9_999_999_999_999.99), "9999999999999.99");
        assert_eq!(printed(999_999_999_999_999.0), "999999999999999");
        assert_eq!(printed(139.93), "139.93");
    }
}
