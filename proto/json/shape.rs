//! The shape of a message in JSON. The tables are generated from the protos.

use serde::de::DeserializeOwned;

use crate::Validate;

/// A message that is read from JSON or from a query.
pub trait Shaped: DeserializeOwned + Default + Validate {
    /// Its names and types.
    const SHAPE: &'static Shape;
}

/// The names and types of a message.
#[derive(Debug)]
pub struct Shape {
    /// Whether unknown members and unknown enum values are ignored, as in events, or refused, as in commands.
    pub tolerant: bool,
    /// The fields in the order of the proto.
    pub fields: &'static [Field],
}

impl Shape {
    /// Finds a field by its JSON or its proto name; canonical proto3 JSON accepts both.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.json == name || field.name == name)
    }
}

/// One field.
#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    pub json: &'static str,
    pub list: bool,
    /// Whether null means absent.
    pub optional: bool,
    /// The type of the value, or of each entry.
    pub kind: Kind,
}

/// The type of a value.
#[derive(Debug)]
pub enum Kind {
    Text,
    Int32,
    Double,
    Bool,
    /// One of these names, or its number.
    Enum(&'static [(&'static str, i32)]),
    /// A time in RFC 3339.
    Timestamp,
    Message(&'static Shape),
}
