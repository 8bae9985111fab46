//! The checks of messages: the violations of the contracts and of core in one list.

use minishop_contracts::Validate;
use minishop_contracts::orders::v1::CreateOrderRequest;
use minishop_core::order::{CreateOrder, Line};
use minishop_core::refusal::Refusal;
use minishop_core::violation::{FieldCode, Violation};

use crate::protocol::Protocol;
use crate::refusals;

/// Validates a message. The refusal includes `found`, the violations from decoding.
pub fn checked<T: Validate>(protocol: Protocol, message: T, mut found: Vec<Violation>) -> Result<T, Refusal> {
    found.extend(message.violations());
    if found.is_empty() { Ok(message) } else { Err(refusals::fields(protocol, found)) }
}

/// Converts a message to a command. The refusal lists all violations: `found` while decoding, the contract's, and core's.
pub fn create_order(protocol: Protocol, message: CreateOrderRequest, mut found: Vec<Violation>) -> Result<CreateOrder, Refusal> {
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
            found.extend(money.into_iter().filter(|v| !(whole && v.code == FieldCode::TotalTooLarge)));
        }
    }
    Err(refusals::fields(protocol, found))
}
