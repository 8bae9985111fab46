//! Writes an `impl Validate` for each message.

use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};

use crate::names;
use crate::rules::{self, Rule};

/// Writes the validators of all our messages.
pub fn generate(pool: &DescriptorPool) -> String {
    let messages = pool.all_messages();
    let ours = messages.filter(|message| names::is_ours(message.package_name()) && !message.is_map_entry());
    ours.map(|message| validator(pool, &message)).collect()
}

fn validator(pool: &DescriptorPool, message: &MessageDescriptor) -> String {
    rules::refuse_message_rules(pool, message);
    let fields: String = message.fields().map(|field| check(pool, &field)).collect();
    let (at, out) = if fields.is_empty() { ("_", "_") } else { ("at", "out") };
    format!(
        "impl crate::Validate for {} {{\n    fn check(&self, {at}: &crate::Path<'_>, {out}: &mut Vec<minishop_core::violation::Violation>) {{\n{fields}    }}\n}}\n",
        names::message(message),
    )
}

/// Writes the check of one field. A field with presence is checked only if it is present.
fn check(pool: &DescriptorPool, field: &FieldDescriptor) -> String {
    let (absent, rules): (Vec<_>, Vec<_>) = rules::of(pool, field).into_iter().partition(|rule| rule.condition.is_none());
    let body = body(field, &rules);
    let name = field.name();
    let borrow = if by_reference(field) { "&" } else { "" };
    match (absent.first(), body.is_empty()) {
        (None, true) => String::new(),
        (None, false) if field.supports_presence() => {
            format!("        if let Some(v) = {borrow}self.r#{name} {{ {body} }}\n")
        }
        (None, false) => format!("        {{ let v = {borrow}self.r#{name}; {body} }}\n"),
        (Some(absent), true) => {
            let refuse = refuse(field, absent);
            format!("        if self.r#{name}.is_none() {{ {refuse} }}\n")
        }
        (Some(absent), false) => {
            let refuse = refuse(field, absent);
            format!("        if let Some(v) = {borrow}self.r#{name} {{ {body} }} else {{ {refuse} }}\n")
        }
    }
}

/// Writes the rules as one chain, so that only the first broken one is reported; the content of the field is checked last.
fn body(field: &FieldDescriptor, rules: &[Rule]) -> String {
    let mut chain: Vec<String> = rules
        .iter()
        .filter_map(|rule| {
            let condition = rule.condition.as_ref()?;
            Some(format!("if {condition} {{ {} }}", refuse(field, rule)))
        })
        .collect();
    match inner(field) {
        Some(inner) if chain.is_empty() => chain.push(inner),
        Some(inner) => chain.push(format!("{{ {inner} }}")),
        None => {}
    }
    chain.join(" else ")
}

fn refuse(field: &FieldDescriptor, rule: &Rule) -> String {
    format!("out.push(at.refuse({:?}, minishop_core::violation::FieldCode::{}, {:?}));", field.name(), rule.code, rule.message)
}

fn by_reference(field: &FieldDescriptor) -> bool {
    field.is_list() || matches!(field.kind(), Kind::String | Kind::Message(_))
}

/// Writes the check of a nested message or of a list of them.
fn inner(field: &FieldDescriptor) -> Option<String> {
    let Kind::Message(nested) = field.kind() else {
        return None;
    };
    // Map entries are not messages in Rust, and no map has rules yet.
    if !names::is_ours(nested.package_name()) || nested.is_map_entry() {
        return None;
    }
    let name = field.name();
    Some(if field.is_list() {
        format!("for (i, entry) in v.iter().enumerate() {{ crate::Validate::check(entry, &at.entry({name:?}, i), out); }}")
    } else {
        format!("crate::Validate::check(v, &at.field({name:?}), out);")
    })
}
