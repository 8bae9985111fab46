//! Writes a `Shape` for each message: the names and types of its fields. JSON that does not decode is compared with it.
//!
//! Only messages that are read from JSON have a `Shape`: requests, and everything in events. An unknown type fails the build.

use std::collections::BTreeSet;

use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};

use crate::names;

/// Writes an `impl Shaped` for each message that is read from JSON.
pub fn generate(pool: &DescriptorPool) -> String {
    let requests = pool.services().flat_map(|s| s.methods().map(|m| m.input()).collect::<Vec<_>>());
    let events = pool.all_messages().filter(is_event);
    let mut todo: Vec<_> = requests.chain(events).collect();
    let mut done = BTreeSet::new();
    let mut out = String::new();
    while let Some(message) = todo.pop() {
        if done.insert(message.full_name().to_owned()) {
            out += &shape(&message);
            todo.extend(message.fields().filter_map(|field| nested(&field)));
        }
    }
    out
}

/// Returns whether a message belongs to events, which are read tolerantly.
fn is_event(message: &MessageDescriptor) -> bool {
    message.package_name().starts_with("minishop.events.")
}

fn nested(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(message) if names::is_ours(message.package_name()) => Some(message),
        _ => None,
    }
}

fn shape(message: &MessageDescriptor) -> String {
    let fields: String = message.fields().map(|field| entry(&field)).collect();
    format!(
        "impl crate::json::Shaped for {} {{\n    const SHAPE: &'static crate::json::Shape = &crate::json::Shape {{ tolerant: {}, fields: &[\n{fields}    ] }};\n}}\n",
        names::message(message),
        is_event(message),
    )
}

fn entry(field: &FieldDescriptor) -> String {
    format!(
        "        crate::json::Field {{ name: {:?}, json: {:?}, list: {}, optional: {}, kind: crate::json::Kind::{} }},\n",
        field.name(),
        field.json_name(),
        field.is_list(),
        field.supports_presence(),
        kind(field),
    )
}

fn kind(field: &FieldDescriptor) -> String {
    match field.kind() {
        Kind::String => "Text".into(),
        Kind::Int32 => "Int32".into(),
        Kind::Double => "Double".into(),
        Kind::Bool => "Bool".into(),
        Kind::Enum(kind) => {
            // The zero value means that the field is not set: it is never sent.
            let words = kind.values().filter(|v| v.number() != 0);
            let words: Vec<_> = words.map(|v| format!("({:?}, {})", v.name(), v.number())).collect();
            format!("Enum(&[{}])", words.join(", "))
        }
        Kind::Message(m) if m.full_name() == "google.protobuf.Timestamp" => "Timestamp".into(),
        Kind::Message(m) if names::is_ours(m.package_name()) => {
            format!("Message(<{} as crate::json::Shaped>::SHAPE)", names::message(&m))
        }
        kind => panic!("{}: {kind:?} is not known to proto/codegen/shapes.rs", field.full_name()),
    }
}
