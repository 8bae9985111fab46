//! Numbers of proto3 JSON: bare or in quotes.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::exact::{self, is_json_number};

/// Deserialises a number that is bare or in quotes.
///
/// Whole numbers take no fraction or exponent and never wrap. The texts `NaN`, `Infinity` and `-Infinity` are doubles.
pub(crate) struct Number<T>(pub T);

/// A number type of proto3 JSON.
pub(crate) trait FromJson: Sized {
    fn from_i64(value: i64) -> Option<Self>;
    fn from_u64(value: u64) -> Option<Self>;
    fn from_f64(value: f64) -> Option<Self>;
    fn from_text(text: &str) -> Option<Self>;
}

macro_rules! whole_numbers {
    ($($kind:ty),*) => {$(
        impl FromJson for $kind {
            fn from_i64(value: i64) -> Option<Self> {
                value.try_into().ok()
            }
            fn from_u64(value: u64) -> Option<Self> {
                value.try_into().ok()
            }
            fn from_f64(_: f64) -> Option<Self> {
                None
            }
            fn from_text(text: &str) -> Option<Self> {
                if is_json_number(text) { text.parse().ok() } else { None }
            }
        }
    )*};
}
whole_numbers!(i32, u32, i64, u64);

impl FromJson for f64 {
    #[expect(clippy::cast_precision_loss, reason = "JSON has one kind of number; what does not fit is rounded as by any reader")]
    fn from_i64(value: i64) -> Option<Self> {
        Some(value as f64)
    }
    #[expect(clippy::cast_precision_loss, reason = "as above")]
    fn from_u64(value: u64) -> Option<Self> {
        Some(value as f64)
    }
    fn from_f64(value: f64) -> Option<Self> {
        Some(value)
    }
    fn from_text(text: &str) -> Option<Self> {
        match text {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ if is_json_number(text) => exact::double(text),
            _ => None,
        }
    }
}

impl<'de, T: FromJson> Deserialize<'de> for Number<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);

        impl<T: FromJson> Visitor<'_> for Either<T> {
            type Value = Number<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number in range")
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<Number<T>, E> {
                T::from_i64(value).map(Number).ok_or_else(|| E::invalid_value(Unexpected::Signed(value), &self))
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<Number<T>, E> {
                T::from_u64(value).map(Number).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(value), &self))
            }
            fn visit_f64<E: Error>(self, value: f64) -> Result<Number<T>, E> {
                T::from_f64(value).map(Number).ok_or_else(|| E::invalid_value(Unexpected::Float(value), &self))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Number<T>, E> {
                T::from_text(text).map(Number).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}
