//! Compares JSON with the shape of a message.

use std::borrow::Cow;

use minishop_core::refusal::LISTED_VIOLATIONS;
use minishop_core::violation::{FieldCode, Violation};
use serde_json::{Map, Value};

use super::number::FromJson as _;
use super::shape::{Field, Kind, Shape};
use super::tree::Node;
use crate::text::shown;
use crate::validate::Path;
use crate::wkt::Timestamp;

/// Returns the members that fit a message, under JSON names, and reports the others.
pub(crate) fn message(shape: &'static Shape, members: Vec<(String, Node)>, out: &mut Vec<Violation>) -> Map<String, Value> {
    object(shape, members, &Path::ROOT, out)
}

fn object(shape: &'static Shape, members: Vec<(String, Node)>, at: &Path<'_>, out: &mut Vec<Violation>) -> Map<String, Value> {
    let mut fitting = Map::new();
    let mut names = Names::of(shape);
    for (name, node) in members {
        if let Some(field) = names.first(&name, at, out)
            && let Some(value) = member(shape, field, node, at, out)
        {
            fitting.insert(field.json.to_owned(), value);
        }
    }
    fitting
}

/// Finds unknown and repeated names.
pub(crate) struct Names {
    shape: &'static Shape,
    /// How often each field was given, counted up to three.
    times: Vec<u8>,
}

impl Names {
    pub(crate) fn of(shape: &'static Shape) -> Self {
        Self { shape, times: vec![0; shape.fields.len()] }
    }

    /// Returns the field of a name that is given for the first time; reports an unknown or repeated one.
    pub(crate) fn first(&mut self, name: &str, at: &Path<'_>, out: &mut Vec<Violation>) -> Option<&'static Field> {
        let Some(place) = self.shape.find(name) else {
            if !self.shape.tolerant {
                out.push(unknown(self.shape, at, name, out.len() < LISTED_VIOLATIONS));
            }
            return None;
        };
        let field = &self.shape.fields[place];
        let times = &mut self.times[place];
        *times = times.saturating_add(1).min(3);
        if *times == 2 {
            let message = "must be given once, under one of its names";
            out.push(at.refuse(field.name, FieldCode::DuplicateField, message));
        }
        (*times == 1).then_some(field)
    }
}

fn member(shape: &Shape, field: &'static Field, node: Node, at: &Path<'_>, out: &mut Vec<Violation>) -> Option<Value> {
    if field.optional && matches!(node, Node::Null) {
        return None;
    }
    if !field.list {
        return value(shape, field, node, &at.field(field.name), out);
    }
    let Node::List(entries) = node else {
        out.push(at.refuse(field.name, FieldCode::WrongType, "must be a list"));
        return None;
    };
    let entries = entries.into_iter().enumerate().map(|(index, entry)| {
        // A placeholder takes the position of an entry that does not fit, so that later entries keep their index.
        value(shape, field, entry, &at.entry(field.name, index), out).unwrap_or_else(|| placeholder(&field.kind))
    });
    Some(Value::Array(entries.collect()))
}

fn placeholder(kind: &Kind) -> Value {
    match kind {
        Kind::Text => Value::String(String::new()),
        Kind::Int32 | Kind::Double | Kind::Enum(_) => Value::from(0),
        Kind::Bool => Value::from(false),
        Kind::Timestamp => Value::from("1970-01-01T00:00:00Z"),
        Kind::Message(_) => Value::Object(Map::new()),
    }
}

/// Returns a value that fits its type; reports one that does not.
pub(crate) fn value(
    shape: &Shape,
    field: &'static Field,
    node: Node,
    here: &Path<'_>,
    out: &mut Vec<Violation>,
) -> Option<Value> {
    let fits = match (&field.kind, node) {
        (Kind::Message(inner), Node::Object(members)) => {
            return Some(Value::Object(object(inner, members, here, out)));
        }
        (Kind::Message(_), _) => Err(wrong("must be an object")),
        (Kind::Text, Node::Text(text)) => Ok(Value::String(text)),
        (Kind::Int32, node) => int32(&node).ok_or_else(|| wrong("must be a whole number from -2147483648 to 2147483647")),
        (Kind::Double, node) => double(node).ok_or_else(|| wrong("must be a number")),
        (Kind::Bool, Node::Bool(value)) => Ok(Value::from(value)),
        (Kind::Bool, _) => Err(wrong("must be true or false")),
        (Kind::Enum(words), node) => word(words, node, shape.tolerant),
        (Kind::Timestamp, Node::Text(text)) if Timestamp::parse(&text).is_some() => Ok(Value::String(text)),
        (Kind::Timestamp, Node::Text(_)) => {
            let message = "must be a time in RFC 3339, like 2026-01-31T12:00:00Z";
            Err((FieldCode::InvalidFormat, message.into()))
        }
        (Kind::Text | Kind::Timestamp, _) => Err(wrong("must be a string")),
    };
    match fits {
        Ok(value) => Some(value),
        Err((code, message)) => {
            out.push(Violation::new(here.to_string(), code, message));
            None
        }
    }
}

type Misfit = (FieldCode, Cow<'static, str>);

fn wrong(message: &'static str) -> Misfit {
    (FieldCode::WrongType, message.into())
}

fn int32(node: &Node) -> Option<Value> {
    let number = match node {
        Node::Int(n) => i32::from_i64(*n),
        Node::UInt(n) => i32::from_u64(*n),
        Node::Text(text) => i32::from_text(text),
        _ => None,
    };
    number.map(Value::from)
}

fn double(node: Node) -> Option<Value> {
    match node {
        Node::Int(n) => Some(Value::from(n)),
        Node::UInt(n) => Some(Value::from(n)),
        Node::Float(n) => Some(Value::from(n)),
        // Stays a text: JSON numbers have no infinity.
        Node::Text(text) => f64::from_text(&text).map(|_| Value::String(text)),
        _ => None,
    }
}

fn word(words: &[(&str, i32)], node: Node, tolerant: bool) -> Result<Value, Misfit> {
    let known = |fits: bool, value: Value| {
        if fits || tolerant {
            return Ok(value);
        }
        let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let message = format!("must be one of {}", words.join(", "));
        Err((FieldCode::UnknownValue, message.into()))
    };
    match node {
        Node::Text(text) => known(words.iter().any(|(word, _)| *word == text), Value::String(text)),
        Node::Int(n) => known(words.iter().any(|(_, m)| i64::from(*m) == n), Value::from(n)),
        Node::UInt(n) => known(words.iter().any(|(_, m)| u64::try_from(*m) == Ok(n)), Value::from(n)),
        _ => Err(wrong("must be a string")),
    }
}

/// Builds the violation of an unknown name, with the field that was probably meant.
fn unknown(shape: &Shape, at: &Path<'_>, name: &str, hint: bool) -> Violation {
    let refuse = |message| Violation::unknown(at.to_string(), &shown(name), message);
    if !hint {
        return refuse("is not known here".to_owned());
    }
    refuse(match nearest(shape, name) {
        Some(meant) => format!("is not known here; did you mean {meant}?"),
        None if shape.fields.is_empty() => "is not known here; this request has no fields".to_owned(),
        None => {
            let names: Vec<_> = shape.fields.iter().map(|field| field.json).collect();
            format!("is not known here; known are {}", names.join(", "))
        }
    })
}

/// Finds the field whose name was probably meant: at most a third of its letters differ.
fn nearest(shape: &Shape, name: &str) -> Option<&'static str> {
    if name.len() > 64 {
        return None;
    }
    let name = name.to_ascii_lowercase();
    shape
        .fields
        .iter()
        .map(|field| {
            let distance = strsim::osa_distance(&field.json.to_ascii_lowercase(), &name);
            (distance, field.json)
        })
        .min()
        .filter(|(distance, meant)| *distance <= meant.len() / 3)
        .map(|(_, meant)| meant)
}
