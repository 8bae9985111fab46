//! Violations: what is wrong with a request, by field. The contracts' rules and those of this crate report the same type.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::codes::codes;

codes! {
    /// What is wrong with a field, in order of precedence: of several codes that fit one field, the first is reported.
    FieldCode {
        /// The field occurs more than once.
        DuplicateField = "DUPLICATE_FIELD",
        UnknownField = "UNKNOWN_FIELD",
        WrongType = "WRONG_TYPE",
        Required = "REQUIRED",
        TooLong = "TOO_LONG",
        TooMany = "TOO_MANY",
        /// The text contains an invisible character.
        InvalidCharacter = "INVALID_CHARACTER",
        /// The text does not have the form of the field.
        InvalidFormat = "INVALID_FORMAT",
        /// The value is not one of the known ones.
        UnknownValue = "UNKNOWN_VALUE",
        NotAllowed = "NOT_ALLOWED",
        /// The number is too small, too large or not finite.
        OutOfRange = "OUT_OF_RANGE",
        /// The amount has more decimals than its currency.
        TooManyDecimals = "TOO_MANY_DECIMALS",
        /// The sum exceeds the limit of an order.
        TotalTooLarge = "TOTAL_TOO_LARGE",
        /// We did not issue the token for this request.
        InvalidToken = "INVALID_TOKEN",
        /// Two fields exclude each other.
        Conflict = "CONFLICT",
    }
}

impl FieldCode {
    /// Returns whether violations inside the field are dropped: it is ambiguous, unreadable or too long.
    const fn hides_parts(self) -> bool {
        matches!(self, Self::DuplicateField | Self::WrongType | Self::TooMany)
    }
}

/// One wrong field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The path in proto names: `items[0].product_id`.
    pub field: String,
    pub code: FieldCode,
    /// What would be right, for a person. Contains no input.
    pub message: Cow<'static, str>,
    /// How many bytes at the end of `field` are a name that the client sent; `json_field` keeps them as sent.
    client_named: usize,
}

impl Violation {
    /// Creates a violation of a field given by its proto path.
    pub fn new(field: impl Into<String>, code: FieldCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { field: field.into(), code, message: message.into(), client_named: 0 }
    }

    /// Creates the violation of a name that the message at `parent` does not have.
    pub fn unknown(mut parent: String, name: &str, message: impl Into<Cow<'static, str>>) -> Self {
        if !parent.is_empty() {
            parent.push('.');
        }
        parent.push_str(name);
        Self { client_named: name.len(), ..Self::new(parent, FieldCode::UnknownField, message) }
    }

    /// Returns the path in JSON names: `items[0].productId`.
    pub fn json_field(&self) -> String {
        let (ours, theirs) = self.field.split_at(self.field.len() - self.client_named);
        let mut out = String::with_capacity(self.field.len());
        let mut upper = false;
        for c in ours.chars() {
            match c {
                '_' => upper = true,
                _ if upper => {
                    out.push(c.to_ascii_uppercase());
                    upper = false;
                }
                _ => out.push(c),
            }
        }
        out.push_str(theirs);
        out
    }
}

/// Merges the violations that several checks found in one message.
///
/// Each field keeps one, the first by precedence, at the position of its first mention. Violations inside a field that is
/// ambiguous, unreadable or too long are dropped.
pub fn merged(violations: Vec<Violation>) -> Vec<Violation> {
    let mut order: Vec<Violation> = Vec::with_capacity(violations.len());
    let mut places: HashMap<String, usize> = HashMap::with_capacity(violations.len());
    for violation in violations {
        match places.get(&violation.field) {
            None => {
                places.insert(violation.field.clone(), order.len());
                order.push(violation);
            }
            Some(&place) if violation.code < order[place].code => order[place] = violation,
            Some(_) => {}
        }
    }
    let hidden = |field: &str| {
        field
            .char_indices()
            .filter(|(_, c)| matches!(c, '.' | '['))
            .filter_map(|(end, _)| places.get(&field[..end]))
            .any(|&place| order[place].code.hides_parts())
    };
    let keep: Vec<bool> = order.iter().map(|v| !hidden(&v.field)).collect();
    let mut keep = keep.into_iter();
    order.retain(|_| keep.next().unwrap_or(true));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_code_reads_back_as_itself() {
        for code in FieldCode::ALL {
            assert_eq!(FieldCode::parse(code.as_str()), Some(*code));
        }
    }
}
