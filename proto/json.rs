//! Canonical proto3 JSON: written exactly, commands read strictly.
//!
//! Reading is one pass of generated code. Only if that fails, the JSON is compared with the message's [`Shape`]: this finds all
//! errors at once and keeps what can be read, so that it can be validated too. Numbers keep the digits they were written with
//! ([`exact_numbers`]).

mod exact;
mod number;
mod shape;
pub(crate) mod tree;
pub(crate) mod walk;
mod write;

pub use exact::exact_numbers;
pub(crate) use number::Number;
pub use shape::{Field, Kind, Shape, Shaped};
pub use tree::Syntax;
pub use write::{append, to_vec};

use minishop_core::violation::{Violation, merged};
use serde_json::Value;

use tree::Node;

/// Why bytes could not be read as a message.
#[derive(Debug)]
pub enum JsonError<T> {
    /// Not one JSON object in UTF-8.
    Syntax(Syntax),
    /// An object with members that do not fit.
    Fields(Box<Partial<T>>),
}

/// The readable part of a message with members that do not fit.
#[derive(Debug)]
pub struct Partial<T> {
    /// The message without the members that do not fit. List entries keep their positions.
    pub message: T,
    /// The misfits: duplicate names, unknown names, wrong types.
    pub violations: Vec<Violation>,
}

impl<T: Shaped> Partial<T> {
    /// Validates the readable part too and returns all violations, one per field.
    ///
    /// Callers may add violations found elsewhere to `violations` first.
    pub fn into_violations(self) -> Vec<Violation> {
        let mut all = self.violations;
        self.message.check(&crate::Path::ROOT, &mut all);
        merged(all)
    }
}

/// Reads a command: one JSON object in UTF-8, each member known, given once and of its type. Does not validate values.
pub fn decode_command<T: Shaped>(bytes: &[u8]) -> Result<T, JsonError<T>> {
    read(tree::utf8(bytes).map_err(JsonError::Syntax)?)
}

/// Refuses every member of an object: for commands whose path has all parameters. An empty body is an empty object.
pub fn nothing(bytes: &[u8]) -> Result<Vec<Violation>, Syntax> {
    const NOTHING: &Shape = &Shape { tolerant: false, fields: &[] };
    let text = tree::utf8(bytes)?;
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let Node::Object(members) = tree::parse(text)? else {
        return Err(tree::not_an_object(text));
    };
    let mut violations = Vec::new();
    walk::message(NOTHING, members, &mut violations);
    Ok(merged(violations))
}

/// Reads a message from a text.
pub(crate) fn read<T: Shaped>(text: &str) -> Result<T, JsonError<T>> {
    let exact = exact_numbers(text);
    match serde_json::from_str(&exact) {
        // The generated reader does not remember a null, so it misses a second member of that name.
        Ok(message) if !text.contains("null") => Ok(message),
        _ => compare(text, &exact),
    }
}

/// Reads a message by its shape, slowly and completely. Error positions refer to the text as received.
#[cold]
fn compare<T: Shaped>(text: &str, exact: &str) -> Result<T, JsonError<T>> {
    let tree = tree::parse(text).and_then(|tree| if exact == text { Ok(tree) } else { tree::parse(exact) });
    let Node::Object(members) = tree.map_err(JsonError::Syntax)? else {
        return Err(JsonError::Syntax(tree::not_an_object(text)));
    };
    let mut violations = Vec::new();
    let fitting = walk::message(T::SHAPE, members, &mut violations);
    let message =
        T::deserialize(Value::Object(fitting)).map_err(|_| JsonError::Syntax(tree::at(text, 0, "does not fit its message")))?;
    if violations.is_empty() { Ok(message) } else { Err(JsonError::Fields(Box::new(Partial { message, violations }))) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::orders::v1::CreateOrderRequest;

    /// JSON that is almost a command.
    fn nearly() -> impl Strategy<Value = String> {
        let scalar = prop_oneof![
            Just("null"),
            Just("true"),
            Just("0"),
            Just("-0"),
            Just("7"),
            Just("-7"),
            Just("2.0"),
            Just("1e2"),
            Just("4294967298"),
            Just("18446744073709551616"),
            Just("\"\""),
            Just("\"7\""),
            Just("\"+7\""),
            Just("\"07\""),
            Just("\"1e400\""),
            Just("\"NaN\""),
            Just("\"x\""),
        ]
        .prop_map(str::to_owned);
        let name = prop_oneof![
            Just("customerId"),
            Just("customer_id"),
            Just("items"),
            Just("currency"),
            Just("productId"),
            Just("product_id"),
            Just("qty"),
            Just("price"),
            Just("other"),
        ];
        scalar.prop_recursive(4, 24, 5, move |inner| {
            let member = (name.clone(), inner.clone()).prop_map(|(n, v)| format!("\"{n}\":{v}"));
            prop_oneof![
                proptest::collection::vec(inner, 0..3).prop_map(|v| format!("[{}]", v.join(","))),
                proptest::collection::vec(member, 0..5).prop_map(|m| format!("{{{}}}", m.join(","))),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn the_generated_reader_and_the_comparison_agree(text in nearly()) {
            let fast = serde_json::from_str::<CreateOrderRequest>(&text);
            match compare::<CreateOrderRequest>(&text, &text) {
                Ok(slow) => {
                    let fast = fast.map_err(|error| TestCaseError::fail(error.to_string()))?;
                    prop_assert_eq!(format!("{fast:?}"), format!("{slow:?}"));
                }
                Err(JsonError::Syntax(at)) => prop_assert_eq!(at.message, "must be one JSON object"),
                // The generated reader misses a repeated name whose first value was null.
                Err(JsonError::Fields(_)) => prop_assert!(fast.is_err() || text.contains("null")),
            }
        }
    }
}
