//! Writes an `impl Validate` for each message from its `buf.validate` options.
//!
//! A rule that is not known here fails the build: a rule that nobody enforces would be a lie in the contract.

use prost_reflect::{
    DescriptorPool, DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor,
    Value,
};

use crate::names;

/// One broken rule: `condition` speaks of the value `v`. `code` is a variant of `FieldCode`.
struct Rule {
    condition: String,
    code: &'static str,
    message: String,
}

/// The field codes that rules give, in order of precedence: a field reports the first that fits.
const PRECEDENCE: [&str; 8] = [
    "Required",
    "TooLong",
    "TooMany",
    "InvalidCharacter",
    "InvalidFormat",
    "UnknownValue",
    "OutOfRange",
    "InvalidToken",
];

/// Writes the validators of all our messages.
pub fn generate(pool: &DescriptorPool) -> String {
    let options = pool
        .get_extension_by_name("buf.validate.field")
        .expect("buf/validate/validate.proto is imported");
    let messages = pool
        .all_messages()
        .filter(|m| names::is_ours(m.package_name()));
    messages
        .map(|message| validator(&message, &options))
        .collect()
}

fn validator(message: &MessageDescriptor, options: &ExtensionDescriptor) -> String {
    let fields: String = message
        .fields()
        .map(|field| check(&field, options))
        .collect();
    let (at, out) = if fields.is_empty() {
        ("_", "_")
    } else {
        ("at", "out")
    };
    format!(
        "impl crate::Validate for {} {{\n    fn check(&self, {at}: &crate::Path<'_>, {out}: &mut Vec<crate::Violation>) {{\n{fields}    }}\n}}\n",
        names::message(message),
    )
}

/// Writes the check of one field: its own rules as one chain of `if`s, then what lies in it.
fn check(field: &FieldDescriptor, options: &ExtensionDescriptor) -> String {
    let name = field.name();
    let mut rules = rules(field, options);
    rules.sort_by_key(|rule| {
        PRECEDENCE
            .iter()
            .position(|code| *code == rule.code)
            .unwrap_or_else(|| panic!("{} has no precedence", rule.code))
    });
    let absent = rules
        .iter()
        .position(|rule| rule.condition == ABSENT)
        .map(|place| rules.remove(place));
    let mut chain: Vec<String> = rules
        .iter()
        .map(|r| {
            format!(
                "if {} {{ out.push(at.refuse({name:?}, crate::FieldCode::{}, {:?})); }}",
                r.condition, r.code, r.message
            )
        })
        .collect();
    let inner = inner(field);
    if let Some(inner) = &inner {
        chain.push(if chain.is_empty() {
            inner.clone()
        } else {
            format!("{{ {inner} }}")
        });
    }
    let body = chain.join(" else ");
    if body.is_empty() && absent.is_none() {
        return String::new();
    }
    let text = matches!(field.kind(), Kind::String);
    if field.supports_presence() {
        let nested = matches!(field.kind(), Kind::Message(_));
        let given = match (text || nested, body.is_empty()) {
            (_, true) => format!("        if self.r#{name}.is_some() {{}}"),
            (true, false) => format!("        if let Some(v) = &self.r#{name} {{ {body} }}"),
            (false, false) => format!("        if let Some(v) = self.r#{name} {{ {body} }}"),
        };
        let absent = absent.map_or(String::new(), |rule| {
            format!(
                " else {{ out.push(at.refuse({name:?}, crate::FieldCode::{}, {:?})); }}",
                rule.code, rule.message
            )
        });
        return given + &absent + "\n";
    }
    assert!(
        absent.is_none(),
        "{}: absence is a zero here",
        field.full_name()
    );
    let borrow = if text || field.is_list() { "&" } else { "" };
    format!("        {{ let v = {borrow}self.r#{name}; {body} }}\n")
}

/// The condition of a field with presence that is not there; it is written as the `else` of the others.
const ABSENT: &str = "absent";

/// Writes the walk into a nested message or a list of them.
fn inner(field: &FieldDescriptor) -> Option<String> {
    let Kind::Message(nested) = field.kind() else {
        return None;
    };
    if !names::is_ours(nested.package_name()) {
        return None;
    }
    let name = field.name();
    Some(if field.is_list() {
        format!(
            "for (i, entry) in v.iter().enumerate() {{ crate::Validate::check(entry, &at.entry({name:?}, i), out); }}"
        )
    } else {
        format!("crate::Validate::check(v, &at.field({name:?}), out);")
    })
}

fn rules(field: &FieldDescriptor, options: &ExtensionDescriptor) -> Vec<Rule> {
    let set = field.options();
    if !set.has_extension(options) {
        return Vec::new();
    }
    let Value::Message(set) = set.get_extension(options).into_owned() else {
        panic!("{}: buf.validate.field is a message", field.full_name())
    };
    let mut rules = Vec::new();
    for (kind, value) in set.fields() {
        match (kind.name(), value) {
            ("required", Value::Bool(true)) => rules.push(required(field)),
            ("string", Value::Message(set)) => rules.extend(string_rules(field, set)),
            ("repeated", Value::Message(set)) => rules.extend(list_rules(field, set)),
            ("int32" | "double", Value::Message(set)) => rules.push(number_rule(field, set)),
            ("enum", Value::Message(set)) => rules.push(enum_rule(field, set)),
            (kind, _) => unknown(field, kind),
        }
    }
    rules
}

fn required(field: &FieldDescriptor) -> Rule {
    let condition = if field.supports_presence() {
        ABSENT
    } else {
        match field.kind() {
            _ if field.is_list() => "v.is_empty()",
            Kind::String => "v.is_empty()",
            Kind::Enum(_) => "v == 0",
            kind => panic!("{}: required is not known for {kind:?}", field.full_name()),
        }
    };
    Rule {
        condition: condition.into(),
        code: "Required",
        message: "must be given".into(),
    }
}

fn string_rules(field: &FieldDescriptor, set: &DynamicMessage) -> Vec<Rule> {
    let rule = |condition: String, code, message: &str| Rule {
        condition,
        code,
        message: message.into(),
    };
    let own = set
        .fields()
        .map(|(rule, value)| (rule.name().to_owned(), value));
    let predefined = set
        .extensions()
        .map(|(rule, value)| (rule.full_name().to_owned(), value));
    own.chain(predefined)
        .map(|(name, value)| match (name.as_str(), value) {
            ("min_len", Value::U64(1)) => rule("v.is_empty()".into(), "Required", "must be given"),
            ("max_len", Value::U64(n)) => rule(
                format!("crate::text::is_longer_than(v, {n})"),
                "TooLong",
                &format!("must have at most {n} characters"),
            ),
            // Only tokens are limited in bytes, and what is wrong with a token is never told apart.
            ("max_bytes", Value::U64(n)) => rule(
                format!("v.len() > {n}"),
                "InvalidToken",
                "must be a token from an earlier answer to the same request",
            ),
            ("uuid", Value::Bool(true)) => rule(
                "!crate::text::is_uuid(v)".into(),
                "InvalidFormat",
                "must be a UUID: 32 hexadecimal digits in groups of 8-4-4-4-12",
            ),
            ("pattern", Value::String(pattern)) if pattern == "^[A-Z]{3}$" => rule(
                "!crate::text::is_currency_form(v)".into(),
                "InvalidFormat",
                "must be three capital letters, a currency code of ISO 4217",
            ),
            ("minishop.rules.v1.no_hidden", Value::Bool(true)) => rule(
                "crate::text::has_hidden(v)".into(),
                "InvalidCharacter",
                "must not hold control or invisible characters",
            ),
            ("minishop.rules.v1.no_outer_space", Value::Bool(true)) => rule(
                "crate::text::has_outer_space(v)".into(),
                "InvalidFormat",
                "must not begin or end with white space",
            ),
            (name, _) => unknown(field, &format!("string.{name}")),
        })
        .collect()
}

fn list_rules(field: &FieldDescriptor, set: &DynamicMessage) -> Vec<Rule> {
    set.fields()
        .map(|(rule, value)| match (rule.name(), value) {
            ("min_items", Value::U64(1)) => Rule {
                condition: "v.is_empty()".into(),
                code: "Required",
                message: "must have at least one entry".into(),
            },
            ("max_items", Value::U64(n)) => Rule {
                condition: format!("v.len() > {n}"),
                code: "TooMany",
                message: format!("must have at most {n} entries"),
            },
            (name, _) => unknown(field, &format!("repeated.{name}")),
        })
        .collect()
}

/// Makes one rule of all bounds. It asks whether the value lies in the range, so that NaN does not.
fn number_rule(field: &FieldDescriptor, set: &DynamicMessage) -> Rule {
    let (mut low, mut high) = (None, None);
    for (rule, value) in set.fields() {
        let (literal, shown) = match value {
            Value::I32(n) => (n.to_string(), n.to_string()),
            Value::F64(n) => (format!("{n:?}"), n.to_string()),
            _ => (String::new(), String::new()),
        };
        match rule.name() {
            "gte" => low = Some((literal, shown)),
            "lte" => high = Some((literal, shown)),
            // Both bounds are asked for below, and no number between two numbers is infinite.
            "finite" => {}
            name => unknown(field, &format!("number.{name}")),
        }
    }
    let (Some((low, from)), Some((high, to))) = (low, high) else {
        panic!("{}: a number needs both gte and lte", field.full_name())
    };
    Rule {
        condition: format!("!({low}..={high}).contains(&v)"),
        code: "OutOfRange",
        message: format!("must be from {from} to {to}"),
    }
}

fn enum_rule(field: &FieldDescriptor, set: &DynamicMessage) -> Rule {
    let Kind::Enum(kind) = field.kind() else {
        panic!("{}: enum rules stand on an enum", field.full_name())
    };
    for (rule, value) in set.fields() {
        if (rule.name(), value) != ("defined_only", &Value::Bool(true)) {
            unknown(field, &format!("enum.{}", rule.name()))
        }
    }
    let words: Vec<_> = kind
        .values()
        .filter(|v| v.number() != 0)
        .map(|v| v.name().to_owned())
        .collect();
    Rule {
        condition: format!("{}::try_from(v).is_err()", names::enumeration(&kind)),
        code: "UnknownValue",
        message: format!("must be one of {}", words.join(", ")),
    }
}

fn unknown(field: &FieldDescriptor, rule: &str) -> ! {
    panic!(
        "{}: buf.validate rule {rule} is not known to proto/codegen/validate.rs",
        field.full_name()
    )
}
