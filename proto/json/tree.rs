//! JSON as sent: members in their order, repeated ones included.

use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A JSON syntax error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syntax {
    /// The line, from 1.
    pub line: usize,
    /// The column in bytes, from 1; 0 before the first byte.
    pub column: usize,
    /// What is wrong there. Contains no input.
    pub message: String,
}

/// One JSON value.
#[derive(Debug)]
pub(crate) enum Node {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

/// Decodes bytes as a JSON text, which is UTF-8 without a byte order mark (RFC 8259, section 8.1).
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, Syntax> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let (line, column) = position(&bytes[..error.valid_up_to()]);
        syntax(line, column, "not UTF-8")
    })?;
    if text.starts_with('\u{FEFF}') {
        return Err(at(text, 0, "begins with a byte order mark"));
    }
    Ok(text)
}

/// Parses one JSON value with nothing after it, at most 127 levels deep.
pub(crate) fn parse(text: &str) -> Result<Node, Syntax> {
    serde_json::from_str(text).map_err(|error| {
        let place = format!(" at line {} column {}", error.line(), error.column());
        let message = error.to_string();
        let message = message.strip_suffix(&place).unwrap_or(&message);
        syntax(error.line(), error.column(), message)
    })
}

/// Builds the error of a text that is JSON but not an object.
pub(crate) fn not_an_object(text: &str) -> Syntax {
    let start = text.len() - text.trim_ascii_start().len();
    at(text, start, "must be one JSON object")
}

/// Builds the error at a byte of a text.
pub(crate) fn at(text: &str, offset: usize, message: &str) -> Syntax {
    let (line, column) = position(&text.as_bytes()[..offset]);
    syntax(line, column, message)
}

fn syntax(line: usize, column: usize, message: &str) -> Syntax {
    Syntax { line, column, message: message.to_owned() }
}

/// Returns the line and column of the byte that follows these.
fn position(before: &[u8]) -> (usize, usize) {
    let mut lines = before.split(|b| *b == b'\n');
    let last = lines.next_back().map_or(0, <[u8]>::len);
    (lines.count() + 1, last + 1)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
                Ok(Node::Bool(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
                Ok(Node::Int(value))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
                Ok(Node::UInt(value))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
                Ok(Node::Float(value))
            }
            fn visit_str<E>(self, value: &str) -> Result<Node, E> {
                Ok(Node::Text(value.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = seq.next_element()? {
                    entries.push(entry);
                }
                Ok(Node::List(entries))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Node::Object(members))
            }
        }
        deserializer.deserialize_any(Any)
    }
}
