//! Currencies of ISO 4217 that are in use and have a minor unit.

use crate::money;

/// A currency: its three capitals and its number of decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Currency {
    code: [u8; 3],
    scale: u32,
}

/// Why a text is not a currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CurrencyError {
    /// Not three capital letters.
    #[error("must be an ISO 4217 code of three capital letters, such as BRL")]
    Format,
    /// Three capitals, but no currency in use that has a minor unit.
    #[error("is not an active ISO 4217 currency")]
    Unknown,
}

/// Currency codes by scale, each followed by one blank.
const BY_SCALE: [(u32, &str); 4] = [
    (0, "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"),
    (
        2,
        "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW CNY COP \
         COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR \
         JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN \
         NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL \
         THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD XCG YER ZAR ZMW ZWG",
    ),
    (3, "BHD IQD JOD KWD LYD OMR TND"),
    (4, "CLF UYW"),
];

impl Currency {
    /// Parses a code; lower case is refused rather than folded.
    pub fn parse(text: &str) -> Result<Self, CurrencyError> {
        let code: [u8; 3] = text.as_bytes().try_into().map_err(|_| CurrencyError::Format)?;
        if !code.iter().all(u8::is_ascii_uppercase) {
            return Err(CurrencyError::Format);
        }
        BY_SCALE
            .iter()
            .find(|(_, codes)| codes.as_bytes().chunks(4).any(|known| known[..3] == code))
            .map(|(scale, _)| Self { code, scale: *scale })
            .ok_or(CurrencyError::Unknown)
    }

    /// Returns the number of decimals of an order's amounts. The code is absent or was validated on entry.
    pub fn scale_of(code: Option<&str>) -> u32 {
        code.and_then(|code| Self::parse(code).ok()).map_or(money::DEFAULT_SCALE, |currency| currency.scale)
    }

    /// Returns the three capitals.
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.code).expect("a currency's code is three ASCII capitals")
    }

    /// Returns the number of decimals.
    pub fn scale(&self) -> u32 {
        self.scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn currencies_in_use_have_their_scale() {
        for (code, scale) in [("BRL", 2), ("JPY", 0), ("KWD", 3), ("CLF", 4), ("USD", 2)] {
            assert_eq!(Currency::parse(code).map(|c| c.scale()), Ok(scale), "{code}");
        }
    }

    #[test]
    fn retired_and_unitless_codes_are_unknown_and_other_spellings_are_malformed() {
        for code in ["ABC", "XXX", "XAU", "DEM"] {
            assert_eq!(Currency::parse(code), Err(CurrencyError::Unknown), "{code}");
        }
        for code in ["usd", "US", "usd1", "", "U D"] {
            assert_eq!(Currency::parse(code), Err(CurrencyError::Format), "{code}");
        }
    }
}
