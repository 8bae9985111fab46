//! Invalid fields: the violations of the contracts and of core in one list, under the names of the caller's protocol.

use minishop_contracts::orders::v1::CreateOrderRequest;
use minishop_contracts::{FieldCode as Found, Validate, Violation as Finding, settle};
use minishop_core::order::{CreateOrder, Line};
use minishop_core::refusal::{FieldCode, Refusal, Violation};

use crate::call::Protocol;

/// Builds the refusal of fields: JSON names for REST, proto names for gRPC.
pub fn refuse(protocol: Protocol, findings: Vec<Finding>) -> Refusal {
    let violations = settle(findings).into_iter().map(|finding| {
        let field = match protocol {
            Protocol::Rest => finding.json_field(),
            Protocol::Grpc => finding.field,
        };
        let code = FieldCode::parse(finding.code.as_str()).expect("both lists of field codes are equal, by test");
        Violation::new(field, code, finding.message)
    });
    Refusal::fields(violations.collect())
}

/// Builds the refusal of one field.
pub fn refuse_one(protocol: Protocol, field: &'static str, code: Found, message: &'static str) -> Refusal {
    refuse(protocol, vec![Finding::new(field, code, message)])
}

/// Validates a message. The refusal includes `found`, the violations from decoding.
pub fn checked<T: Validate>(protocol: Protocol, message: T, mut found: Vec<Finding>) -> Result<T, Refusal> {
    found.extend(message.violations());
    if found.is_empty() { Ok(message) } else { Err(refuse(protocol, found)) }
}

/// Converts a message to a command. The refusal lists all violations: `found` while decoding, the contract's, and core's.
pub fn create_order(protocol: Protocol, message: CreateOrderRequest, mut found: Vec<Finding>) -> Result<CreateOrder, Refusal> {
    message.check(&minishop_contracts::Path::ROOT, &mut found);
    let lines = message.items.into_iter().map(|item| Line {
        product_id: item.product_id,
        qty: item.qty,
        // The contract's check reports an absent price; NaN makes core refuse it too.
        price: item.price.unwrap_or(f64::NAN),
    });
    match CreateOrder::new(message.customer_id, lines.collect(), message.currency.as_deref()) {
        Ok(order) if found.is_empty() => return Ok(order),
        Ok(_) => {}
        Err(money) => {
            // The total of invalid lines means nothing.
            let whole = found.iter().any(|f| f.field.starts_with("items"));
            let money = money.into_iter().filter(|v| !(whole && v.code == FieldCode::TotalTooLarge));
            found.extend(money.map(|v| Finding::new(v.field, foreign(v.code), v.message)));
        }
    }
    Err(refuse(protocol, found))
}

const fn foreign(code: FieldCode) -> Found {
    match code {
        FieldCode::DuplicateField => Found::DuplicateField,
        FieldCode::UnknownField => Found::UnknownField,
        FieldCode::WrongType => Found::WrongType,
        FieldCode::Required => Found::Required,
        FieldCode::TooLong => Found::TooLong,
        FieldCode::TooMany => Found::TooMany,
        FieldCode::InvalidCharacter => Found::InvalidCharacter,
        FieldCode::InvalidFormat => Found::InvalidFormat,
        FieldCode::UnknownValue => Found::UnknownValue,
        FieldCode::NotAllowed => Found::NotAllowed,
        FieldCode::OutOfRange => Found::OutOfRange,
        FieldCode::TooManyDecimals => Found::TooManyDecimals,
        FieldCode::TotalTooLarge => Found::TotalTooLarge,
        FieldCode::InvalidToken => Found::InvalidToken,
        FieldCode::Conflict => Found::Conflict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lists_of_field_codes_are_equal() {
        for code in FieldCode::ALL {
            assert_eq!(FieldCode::parse(foreign(*code).as_str()), Some(*code));
        }
    }
}
