//! Reads the `buf.validate` options of a field.
//!
//! An unknown rule fails the build: the contract must not state a rule that is not enforced.

use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

use crate::names;

/// One rule.
pub struct Rule {
    /// When it is broken, as Rust over the value `v`. `None`: it is broken if a field with presence is absent.
    pub condition: Option<String>,
    /// The variant of `FieldCode` that it reports.
    pub code: &'static str,
    pub message: String,
}

/// The field codes that rules report, in order of precedence: a field reports the first that fits.
const PRECEDENCE: [&str; 8] =
    ["Required", "TooLong", "TooMany", "InvalidCharacter", "InvalidFormat", "UnknownValue", "OutOfRange", "InvalidToken"];

/// Returns the rules of a field in order of precedence.
pub fn of(pool: &DescriptorPool, field: &FieldDescriptor) -> Vec<Rule> {
    let option = pool.get_extension_by_name("buf.validate.field").expect("buf/validate/validate.proto is imported");
    let options = field.options();
    if !options.has_extension(&option) {
        return Vec::new();
    }
    let Value::Message(set) = options.get_extension(&option).into_owned() else {
        panic!("{}: buf.validate.field is a message", field.full_name())
    };
    let mut rules = Vec::new();
    for (kind, value) in settings(&set) {
        match (kind.as_str(), &value) {
            ("required", Value::Bool(true)) => rules.push(required(field)),
            ("string", Value::Message(set)) => rules.extend(text_rules(field, set)),
            ("repeated", Value::Message(set)) => rules.extend(list_rules(field, set)),
            ("int32" | "double", Value::Message(set)) => rules.push(range(field, set)),
            ("enum", Value::Message(set)) => rules.push(known_word(field, set)),
            (kind, _) => unknown(field.full_name(), kind),
        }
    }
    rules.sort_by_key(|rule| {
        let place = PRECEDENCE.iter().position(|code| *code == rule.code);
        place.unwrap_or_else(|| panic!("{} has no precedence", rule.code))
    });
    rules
}

/// Fails the build for rules over several fields, which no message has yet.
pub fn refuse_message_rules(pool: &DescriptorPool, message: &MessageDescriptor) {
    let is_set =
        |name, options: DynamicMessage| pool.get_extension_by_name(name).is_some_and(|option| options.has_extension(&option));
    if is_set("buf.validate.message", message.options()) {
        unknown(message.full_name(), "message");
    }
    for oneof in message.oneofs() {
        if is_set("buf.validate.oneof", oneof.options()) {
            unknown(oneof.full_name(), "oneof");
        }
    }
}

/// Returns everything that is set in a set of rules: protovalidate's own by name, predefined ones by full name.
fn settings(set: &DynamicMessage) -> Vec<(String, Value)> {
    let own = set.fields().map(|(rule, value)| (rule.name().to_owned(), value.clone()));
    let predefined = set.extensions().map(|(rule, value)| (rule.full_name().to_owned(), value.clone()));
    own.chain(predefined).collect()
}

fn rule(condition: impl Into<String>, code: &'static str, message: impl Into<String>) -> Rule {
    Rule { condition: Some(condition.into()), code, message: message.into() }
}

fn required(field: &FieldDescriptor) -> Rule {
    let condition = match field.kind() {
        _ if field.supports_presence() => None,
        Kind::String => Some("v.is_empty()".to_owned()),
        Kind::Enum(_) => Some("v == 0".to_owned()),
        kind => panic!("{}: required is not known for {kind:?}", field.full_name()),
    };
    Rule { condition, code: "Required", message: "must be given".to_owned() }
}

fn text_rules(field: &FieldDescriptor, set: &DynamicMessage) -> Vec<Rule> {
    let rules = settings(set).into_iter();
    rules
        .map(|(name, value)| match (name.as_str(), value) {
            ("min_len", Value::U64(1)) => rule("v.is_empty()", "Required", "must be given"),
            ("max_len", Value::U64(n)) => {
                let message = format!("must have at most {n} characters");
                rule(format!("crate::text::is_longer_than(v, {n})"), "TooLong", message)
            }
            // Only tokens are limited in bytes, and every wrong token gets the same message.
            ("max_bytes", Value::U64(n)) => {
                let message = "must be a token from an earlier answer to the same request";
                rule(format!("v.len() > {n}"), "InvalidToken", message)
            }
            ("uuid", Value::Bool(true)) => {
                let message = "must be a UUID: 32 hexadecimal digits in groups of 8-4-4-4-12";
                rule("!minishop_core::ids::is_uuid(v)", "InvalidFormat", message)
            }
            ("pattern", Value::String(pattern)) if pattern == "^[A-Z]{3}$" => {
                let message = "must be three capital letters, a currency code of ISO 4217";
                rule("!crate::text::is_currency_form(v)", "InvalidFormat", message)
            }
            ("pattern", Value::String(pattern)) if pattern == "^[0-9a-f]{64}$" => {
                let message = "must be 64 hexadecimal digits in lower case";
                rule("!crate::text::is_digest(v)", "InvalidFormat", message)
            }
            ("minishop.rules.v1.no_hidden", Value::Bool(true)) => {
                let message = "must not hold control or invisible characters";
                rule("crate::text::has_hidden(v)", "InvalidCharacter", message)
            }
            ("minishop.rules.v1.no_outer_space", Value::Bool(true)) => {
                let message = "must not begin or end with white space";
                rule("crate::text::has_outer_space(v)", "InvalidFormat", message)
            }
            (name, _) => unknown(field.full_name(), &format!("string.{name}")),
        })
        .collect()
}

fn list_rules(field: &FieldDescriptor, set: &DynamicMessage) -> Vec<Rule> {
    let rules = settings(set).into_iter();
    rules
        .map(|(name, value)| match (name.as_str(), value) {
            ("min_items", Value::U64(1)) => rule("v.is_empty()", "Required", "must have at least one entry"),
            ("max_items", Value::U64(n)) => {
                let message = format!("must have at most {n} entries");
                rule(format!("v.len() > {n}"), "TooMany", message)
            }
            (name, _) => unknown(field.full_name(), &format!("repeated.{name}")),
        })
        .collect()
}

/// Builds one rule from all bounds. It tests whether the value is in the range, since NaN is not.
fn range(field: &FieldDescriptor, set: &DynamicMessage) -> Rule {
    let (mut low, mut high) = (None, None);
    for (name, value) in settings(set) {
        match (name.as_str(), value) {
            ("gte", bound) => low = Some(bound),
            ("lte", bound) => high = Some(bound),
            // Both bounds are required below, and no number between them is infinite.
            ("finite", Value::Bool(true)) => {}
            (name, _) => unknown(field.full_name(), &format!("number.{name}")),
        }
    }
    let (condition, message) = match (low, high) {
        (Some(Value::I32(low)), Some(Value::I32(high))) => {
            (format!("!({low}..={high}).contains(&v)"), format!("must be from {low} to {high}"))
        }
        (Some(Value::F64(low)), Some(Value::F64(high))) => {
            (format!("!({low:?}..={high:?}).contains(&v)"), format!("must be from {low} to {high}"))
        }
        _ => panic!("{}: a number needs both gte and lte", field.full_name()),
    };
    rule(condition, "OutOfRange", message)
}

fn known_word(field: &FieldDescriptor, set: &DynamicMessage) -> Rule {
    let Kind::Enum(kind) = field.kind() else { panic!("{}: enum rules need an enum field", field.full_name()) };
    for (name, value) in settings(set) {
        if (name.as_str(), value) != ("defined_only", Value::Bool(true)) {
            unknown(field.full_name(), &format!("enum.{name}"));
        }
    }
    let words = kind.values().filter(|value| value.number() != 0);
    let words: Vec<_> = words.map(|value| value.name().to_owned()).collect();
    rule(
        format!("{}::try_from(v).is_err()", names::enumeration(&kind)),
        "UnknownValue",
        format!("must be one of {}", words.join(", ")),
    )
}

fn unknown(place: &str, rule: &str) -> ! {
    panic!("{place}: buf.validate rule {rule} is not known to proto/codegen/rules.rs")
}
