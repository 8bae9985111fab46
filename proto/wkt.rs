//! Well-known types with exact proto3 JSON.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};

/// A point in time, `google.protobuf.Timestamp`.
///
/// Its JSON is RFC 3339 in UTC, ends in `Z` and has 0, 3, 6 or 9 digits of a second. Any offset is read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z, negative before.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds after that second, 0 to 999999999.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl Timestamp {
    /// Reads RFC 3339 with any offset. `None` when the text is not that.
    pub fn parse(text: &str) -> Option<Self> {
        let time = DateTime::parse_from_rfc3339(text).ok()?;
        // chrono keeps a leap second as nanoseconds above one second; here it is the last moment of its second.
        let nanos = time.timestamp_subsec_nanos().min(999_999_999);
        Some(Self {
            seconds: time.timestamp(),
            nanos: i32::try_from(nanos).ok()?,
        })
    }

    /// Turns it into chrono's time. `None` when it lies outside the years that chrono knows.
    pub fn to_utc(self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp(self.seconds, u32::try_from(self.nanos).ok()?)
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(time: DateTime<Utc>) -> Self {
        let nanos = time.timestamp_subsec_nanos().min(999_999_999);
        Self {
            seconds: time.timestamp(),
            nanos: i32::try_from(nanos).expect("below one second"),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let time = self
            .to_utc()
            .ok_or_else(|| ser::Error::custom("timestamp out of range"))?;
        serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Rfc3339;
        impl Visitor<'_> for Rfc3339 {
            type Value = Timestamp;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time in RFC 3339")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Timestamp, E> {
                Timestamp::parse(text).ok_or_else(|| E::custom("not a time in RFC 3339"))
            }
        }
        deserializer.deserialize_str(Rfc3339)
    }
}
