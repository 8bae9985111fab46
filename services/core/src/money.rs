//! Money: a double on the wire, whole minor units everywhere else.
//!
//! A price is converted exactly once. It is accepted only if it is the double nearest to a decimal number with at most as many
//! decimals as the currency has, so nothing is ever rounded.

/// The largest price and the largest total, in minor units: 15 digits, all that a double carries exactly.
pub const MAX_MINOR: i64 = 999_999_999_999_999;

/// The decimals of an order without a currency.
pub const DEFAULT_SCALE: u32 = 2;

/// Why a number is not an amount of money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Negative, not a number, infinite, or above [`MAX_MINOR`].
    #[error("must be between 0 and 999999999999999 minor units")]
    OutOfRange,
    /// More decimals than the currency has.
    #[error("has more decimals than the currency allows")]
    TooManyDecimals,
}

/// Converts a wire price to minor units, exactly or not at all.
///
/// The product of price and factor is off by at most 0.25 for amounts up to [`MAX_MINOR`], so rounding finds the only candidate.
/// Dividing the candidate back is correctly rounded (both operands are exact), so equality with the price means that the price
/// *is* that decimal number.
#[expect(clippy::float_cmp, reason = "equality is the point: see above")]
pub fn to_minor(price: f64, scale: u32) -> Result<i64, MoneyError> {
    let factor = factor(scale);
    let candidate = (price * factor).round();
    // Written so that NaN fails.
    if !(price >= 0.0 && candidate <= max_as_f64()) {
        return Err(MoneyError::OutOfRange);
    }
    if candidate / factor == price { Ok(whole(candidate)) } else { Err(MoneyError::TooManyDecimals) }
}

/// Converts minor units to the number printed on the wire: `2100` to `21`, `1050` to `10.5`.
#[expect(clippy::cast_precision_loss, reason = "amounts have at most 15 digits, which a double holds exactly")]
pub fn to_major(minor: i64, scale: u32) -> f64 {
    minor as f64 / factor(scale)
}

#[expect(clippy::cast_possible_wrap, reason = "a currency's scale is at most 4")]
fn factor(scale: u32) -> f64 {
    10f64.powi(scale as i32)
}

#[expect(clippy::cast_precision_loss, reason = "15 digits are exact in a double")]
const fn max_as_f64() -> f64 {
    MAX_MINOR as f64
}

#[expect(clippy::cast_possible_truncation, reason = "the caller has checked that it is whole and at most 15 digits")]
fn whole(candidate: f64) -> i64 {
    candidate as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The slow definition: the shortest decimal text of the double, digit by digit.
    fn by_text(price: f64, scale: u32) -> Result<i64, MoneyError> {
        if !(0.0..=1e16).contains(&price) {
            return Err(MoneyError::OutOfRange);
        }
        let text = price.abs().to_string();
        let (int, frac) = text.split_once('.').unwrap_or((&text, ""));
        let digits = format!("{int}{frac:0<width$}", width = scale as usize);
        if frac.len() > scale as usize {
            let cut = &digits[..int.len() + scale as usize];
            return if cut.parse::<i64>().unwrap() >= MAX_MINOR {
                Err(MoneyError::OutOfRange)
            } else {
                Err(MoneyError::TooManyDecimals)
            };
        }
        digits.parse().ok().filter(|m| *m <= MAX_MINOR).ok_or(MoneyError::OutOfRange)
    }

    #[test]
    fn prices_become_exact_minor_units() {
        let exact = [
            (10.5, 1050),
            (0.01, 1),
            (21.0, 2100),
            (-0.0, 0),
            (4_399_074_046_731.48, 439_907_404_673_148),
            (9_999_999_999_999.99, MAX_MINOR),
            (1.15, 115),
            (0.3, 30),
        ];
        for (price, minor) in exact {
            assert_eq!(to_minor(price, 2), Ok(minor), "{price}");
        }
        assert_eq!(to_minor(10.0, 0), Ok(10));
        assert_eq!(to_minor(1.234, 3), Ok(1234));
    }

    #[test]
    fn more_digits_than_the_scale_are_refused_and_never_rounded() {
        for price in [10.555, 1e-3, 0.100_000_000_1, 5e-324, 0.300_000_000_000_000_04, 3_746.990_000_000_000_2] {
            assert_eq!(to_minor(price, 2), Err(MoneyError::TooManyDecimals), "{price}");
        }
        assert_eq!(to_minor(10.5, 0), Err(MoneyError::TooManyDecimals));
    }

    #[test]
    fn amounts_beyond_the_range_are_refused() {
        for price in [-0.01, 1e13, 1e300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(to_minor(price, 2), Err(MoneyError::OutOfRange), "{price}");
        }
    }

    proptest! {
        #[test]
        fn every_amount_survives_the_wire(minor in 0..=MAX_MINOR, scale in 0u32..=4) {
            prop_assert_eq!(to_minor(to_major(minor, scale), scale), Ok(minor));
        }

        #[test]
        fn any_double_agrees_with_its_shortest_decimal_text(price in any::<f64>(), near in 0..=MAX_MINOR, ulps in 0u64..4, scale in 0u32..=4) {
            prop_assert_eq!(to_minor(price, scale), by_text(price, scale));
            let beside = f64::from_bits(to_major(near, scale).to_bits() + ulps);
            prop_assert_eq!(to_minor(beside, scale), by_text(beside, scale), "{}", beside);
        }
    }
}
