//! Well-known types with exact proto3 JSON.

use std::fmt;

use chrono::{DateTime, Datelike, Timelike, Utc};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};

/// A point in time, `google.protobuf.Timestamp`: from year 1 to year 9999.
///
/// Its JSON is RFC 3339 in UTC, ends in `Z` and has 0, 3, 6 or 9 decimals. Any offset is read. A leap second counts as the last
/// nanosecond of the second before.
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z; negative before.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds after that second, 0 to 999999999.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl Timestamp {
    /// Parses RFC 3339 with any offset. `None` for other texts and outside the years 1 to 9999.
    pub fn parse(text: &str) -> Option<Self> {
        let time = DateTime::parse_from_rfc3339(text).ok()?.to_utc();
        (1..=9999).contains(&time.year()).then(|| time.into())
    }

    /// Converts to chrono's type. `None` outside the years 1 to 9999, or if `nanos` is not in its range.
    pub fn to_utc(self) -> Option<DateTime<Utc>> {
        let nanos = u32::try_from(self.nanos).ok().filter(|n| *n < 1_000_000_000)?;
        DateTime::from_timestamp(self.seconds, nanos).filter(|t| (1..=9999).contains(&t.naive_utc().year()))
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(time: DateTime<Utc>) -> Self {
        // chrono represents a leap second as nanoseconds above one second.
        let nanos = time.timestamp_subsec_nanos().min(999_999_999);
        Self { seconds: time.timestamp(), nanos: i32::try_from(nanos).expect("below one second") }
    }
}

/// A time as text, without allocation: every event contains one.
struct Rfc3339 {
    text: [u8; 30],
    len: usize,
}

impl Rfc3339 {
    fn new(time: DateTime<Utc>) -> Self {
        // The getters of `DateTime` would add the offset for each part.
        let time = time.naive_utc();
        let mut out = Self { text: *b"0000-00-00T00:00:00.000000000Z", len: 0 };
        out.put::<4>(0, time.year().unsigned_abs());
        out.put::<2>(5, time.month());
        out.put::<2>(8, time.day());
        out.put::<2>(11, time.hour());
        out.put::<2>(14, time.minute());
        out.put::<2>(17, time.second());
        out.put::<9>(20, time.nanosecond());
        let end = match time.nanosecond() {
            0 => 19, // drops the point too
            n if n % 1_000_000 == 0 => 23,
            n if n % 1_000 == 0 => 26,
            _ => 29,
        };
        out.text[end] = b'Z';
        out.len = end + 1;
        out
    }

    /// Writes a number with leading zeros.
    fn put<const DIGITS: usize>(&mut self, at: usize, mut number: u32) {
        for place in self.text[at..at + DIGITS].iter_mut().rev() {
            let digit = (number % 10) as u8;
            *place = b'0' + digit;
            number /= 10;
        }
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[..self.len]).expect("digits and ASCII marks")
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let time = self.to_utc().ok_or_else(|| ser::Error::custom("timestamp out of range"))?;
        serializer.serialize_str(Rfc3339::new(time).as_str())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Timestamp;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time in RFC 3339")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Timestamp, E> {
                Timestamp::parse(text).ok_or_else(|| E::custom("not a time in RFC 3339"))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use chrono::SecondsFormat;
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn printed(text: &str) -> String {
        let time = Timestamp::parse(text).expect("a time");
        serde_json::to_string(&time).expect("in range")
    }

    #[test]
    fn a_time_prints_in_utc_with_z_and_no_more_digits_than_it_has() {
        assert_eq!(printed("2026-01-31T12:00:00Z"), r#""2026-01-31T12:00:00Z""#);
        assert_eq!(printed("2026-01-31T12:00:00.5Z"), r#""2026-01-31T12:00:00.500Z""#);
        assert_eq!(printed("2026-01-31T12:00:00.000001Z"), r#""2026-01-31T12:00:00.000001Z""#);
        assert_eq!(printed("1970-01-01T00:00:00.000000001Z"), r#""1970-01-01T00:00:00.000000001Z""#);
        assert_eq!(printed("2026-01-31T01:30:00+02:00"), r#""2026-01-30T23:30:00Z""#);
        assert_eq!(printed("2016-12-31T23:59:60Z"), r#""2016-12-31T23:59:59.999999999Z""#);
        assert_eq!(printed("2100-02-28T23:59:59Z"), r#""2100-02-28T23:59:59Z""#);
    }

    #[test]
    fn what_is_no_time_is_not_read() {
        for wrong in ["", "yesterday", "2026-01-31", "2026-01-31T12:00:00", "2026-02-30T00:00:00Z", "0000-01-01T00:00:00Z"] {
            assert_eq!(Timestamp::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_time_outside_its_range_is_not_written() {
        for (seconds, nanos) in [(i64::MAX, 0), (253_402_300_800, 0), (-62_135_596_801, 0), (0, -1), (0, 1_000_000_000)] {
            assert!(serde_json::to_string(&Timestamp { seconds, nanos }).is_err());
        }
    }

    proptest! {
        #[test]
        fn a_time_prints_as_chrono_prints_it(seconds in -62_135_596_800_i64..=253_402_300_799, nanos in 0_i32..1_000_000_000) {
            let time = Timestamp { seconds, nanos };
            let chrono = time.to_utc().expect("in range").to_rfc3339_opts(SecondsFormat::AutoSi, true);
            let text = serde_json::to_string(&time).expect("in range");
            prop_assert_eq!(&text, &format!("\"{chrono}\""));
            prop_assert_eq!(serde_json::from_str::<Timestamp>(&text).expect("a time"), time);
        }
    }
}
