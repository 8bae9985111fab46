//! An order: the validated command that creates it, its lines, and its states.

use serde::{Deserialize, Serialize};

use crate::currency::{Currency, CurrencyError};
use crate::money::{self, DEFAULT_SCALE, MAX_MINOR, MoneyError};
use crate::violation::{FieldCode, Violation};

/// The state of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Accepted and durable; version 1.
    Created,
    Processed,
    /// Given up by an operator.
    Failed,
    /// Withdrawn before it was processed.
    Cancelled,
}

impl Status {
    /// Returns the spelling of the wire and the stores.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Processed => "processed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Parses the spelling of the wire and the stores; case matters.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Created, Self::Processed, Self::Failed, Self::Cancelled].into_iter().find(|s| s.as_str() == text)
    }

    /// Returns whether the status is final.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Created)
    }
}

/// One line of an order, serialised as the stores keep it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// The product, byte for byte as the client named it.
    pub product_id: String,
    /// 1 to 1 000 000.
    pub qty: i32,
    pub price_minor: i64,
}

/// One line as received: checked for presence and form, but its price is not.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// As sent.
    pub product_id: String,
    /// 1 to 1 000 000.
    pub qty: i32,
    /// The unit price on the wire.
    pub price: f64,
}

/// A validated command to create an order, with exact amounts and their total.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateOrder {
    customer_id: String,
    items: Vec<Item>,
    currency: Option<Currency>,
    total_minor: i64,
}

impl CreateOrder {
    /// Converts lines to exact money, or returns every violation.
    ///
    /// The contract's validators have checked presence, lengths, characters and quantities.
    pub fn new(customer_id: String, lines: Vec<Line>, currency: Option<&str>) -> Result<Self, Vec<Violation>> {
        let mut violations = Vec::new();
        let currency = currency.and_then(|text| match Currency::parse(text) {
            Ok(currency) => Some(currency),
            Err(error) => {
                violations.push(Violation::new("currency", currency_code(error), error.to_string()));
                None
            }
        });
        let scale = currency.map_or(DEFAULT_SCALE, |c| c.scale());
        // Without a valid currency the scale is unknown, so prices are not checked.
        let items = if violations.is_empty() { exact_items(lines, scale, &mut violations) } else { Vec::new() };
        let total = items.iter().map(|item| i128::from(item.qty) * i128::from(item.price_minor)).sum::<i128>();
        let total_minor = i64::try_from(total).ok().filter(|total| *total <= MAX_MINOR);
        if total_minor.is_none() {
            violations.push(Violation::new(
                "items",
                FieldCode::TotalTooLarge,
                "the sum of qty times price is above 999999999999999 minor units",
            ));
        }
        match (violations.is_empty(), total_minor) {
            (true, Some(total_minor)) => Ok(Self { customer_id, items, currency, total_minor }),
            _ => Err(violations),
        }
    }

    /// Returns the customer, the default record key.
    pub fn customer_id(&self) -> &str {
        &self.customer_id
    }

    /// Returns the lines in the client's order.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Returns the currency; `None` if the client named none.
    pub fn currency(&self) -> Option<Currency> {
        self.currency
    }

    /// Returns the sum of all lines in minor units.
    pub fn total_minor(&self) -> i64 {
        self.total_minor
    }

    /// Returns the decimals of every amount.
    pub fn scale(&self) -> u32 {
        self.currency.map_or(DEFAULT_SCALE, |c| c.scale())
    }

    /// Returns the total as printed on the wire.
    pub fn total(&self) -> f64 {
        money::to_major(self.total_minor, self.scale())
    }

    /// Takes the customer and the lines out of the command.
    pub fn into_parts(self) -> (String, Vec<Item>) {
        (self.customer_id, self.items)
    }
}

fn exact_items(lines: Vec<Line>, scale: u32, violations: &mut Vec<Violation>) -> Vec<Item> {
    let mut items = Vec::with_capacity(lines.len());
    for (n, line) in lines.into_iter().enumerate() {
        match money::to_minor(line.price, scale) {
            Ok(price_minor) => items.push(Item { product_id: line.product_id, qty: line.qty, price_minor }),
            Err(error) => violations.push(Violation::new(format!("items[{n}].price"), money_code(error), error.to_string())),
        }
    }
    items
}

const fn money_code(error: MoneyError) -> FieldCode {
    match error {
        MoneyError::OutOfRange => FieldCode::OutOfRange,
        MoneyError::TooManyDecimals => FieldCode::TooManyDecimals,
    }
}

const fn currency_code(error: CurrencyError) -> FieldCode {
    match error {
        CurrencyError::Format => FieldCode::InvalidFormat,
        CurrencyError::Unknown => FieldCode::UnknownValue,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(qty: i32, price: f64) -> Line {
        Line { product_id: "p1".into(), qty, price }
    }

    fn total(lines: &[(i32, f64)]) -> Result<f64, Vec<(String, FieldCode)>> {
        CreateOrder::new("c1".into(), lines.iter().map(|(q, p)| line(*q, *p)).collect(), None)
            .map(|order| order.total())
            .map_err(|v| v.into_iter().map(|v| (v.field, v.code)).collect())
    }

    #[test]
    fn totals_are_exact_where_doubles_are_not() {
        assert_eq!(total(&[(2, 10.5)]), Ok(21.0));
        assert_eq!(total(&[(3, 0.1)]), Ok(0.3));
        assert_eq!(total(&[(1, 0.1), (1, 0.2)]), Ok(0.3));
        assert_eq!(total(&[(100, 1.15)]), Ok(115.0));
        assert_eq!(total(&[(7, 19.99)]), Ok(139.93));
        assert_eq!(total(&[(1, 0.0)]), Ok(0.0));
    }

    #[test]
    fn a_total_beyond_fifteen_digits_is_refused() {
        let too_large = Err(vec![("items".to_owned(), FieldCode::TotalTooLarge)]);
        assert_eq!(total(&[(2, 9_999_999_999_999.99)]), too_large);
        assert_eq!(total(&vec![(1_000_000, 9_999_999_999_999.99); 100]), too_large);
    }

    #[test]
    fn every_wrong_line_is_named() {
        let wrong = total(&[(1, 10.555), (1, 1.0), (1, 1e13)]).unwrap_err();
        assert_eq!(
            wrong,
            vec![("items[0].price".into(), FieldCode::TooManyDecimals), ("items[2].price".into(), FieldCode::OutOfRange)]
        );
    }

    #[test]
    fn the_currency_sets_the_scale() {
        let order = |currency, price| CreateOrder::new("c1".into(), vec![line(1, price)], Some(currency));
        assert_eq!(order("KWD", 1.234).map(|o| o.total_minor()), Ok(1234));
        assert_eq!(order("JPY", 10.5).unwrap_err()[0].code, FieldCode::TooManyDecimals);
        assert_eq!(order("usd", 10.5).unwrap_err()[0].code, FieldCode::InvalidFormat);
        assert_eq!(order("DEM", 10.5).unwrap_err()[0].code, FieldCode::UnknownValue);
    }

    #[test]
    fn a_status_is_read_as_it_is_written() {
        for status in [Status::Created, Status::Processed, Status::Failed, Status::Cancelled] {
            assert_eq!(Status::parse(status.as_str()), Some(status));
        }
    }

    proptest! {
        #[test]
        fn the_total_equals_a_wide_reference(lines in prop::collection::vec((1i32..=1_000_000, 0i64..=MAX_MINOR), 1..20)) {
            let reference: i128 = lines.iter().map(|(q, p)| i128::from(*q) * i128::from(*p)).sum();
            let order = CreateOrder::new("c".into(), lines.iter().map(|(q, p)| line(*q, money::to_major(*p, 2))).collect(), None);
            match order {
                Ok(order) => prop_assert_eq!(i128::from(order.total_minor()), reference),
                Err(_) => prop_assert!(reference > i128::from(MAX_MINOR)),
            }
        }
    }
}
