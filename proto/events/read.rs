//! Decodes envelopes tolerantly: unknown members are ignored, known ones must be valid.

use std::borrow::Cow;
use std::fmt;

use minishop_core::parking::DeadCode;
use minishop_core::violation::{FieldCode, Violation};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::v1::{OrderCreated, OrderSettled};
use crate::json::tree::{self, Node};
use crate::json::{self, JsonError, Partial, Shaped, Syntax};
use crate::text;
use crate::wkt::Timestamp;

/// Maximum size of a record's value, in bytes.
pub const MAX_VALUE_BYTES: usize = 1_000_000;

/// Maximum length of an envelope's texts, in characters.
const MAX_TEXT: usize = 255;

/// Up to this many objects and lists, a value needs no exact check of its depth. An order of 100 lines opens 103.
const SURELY_FLAT: usize = 120;

/// An event as received: its data is decoded once its type is known.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope<'a> {
    /// The event's id: any text of 1 to 255 characters.
    #[serde(borrow)]
    pub event_id: Cow<'a, str>,
    /// The event's type; [`EventType::parse`](super::EventType::parse) classifies it.
    #[serde(borrow)]
    pub r#type: Cow<'a, str>,
    /// When it happened, according to the producer. Nothing is ordered by it.
    pub occurred_at: Timestamp,
    /// The correlation id as received, 1 to 255 characters of any kind. The event's id replaces one that
    /// [`CorrelationId::parse`](minishop_core::ids::CorrelationId::parse) cannot read.
    #[serde(borrow)]
    pub correlation_id: Cow<'a, str>,
    /// The idempotency key, 1 to 255 characters.
    #[serde(borrow)]
    pub idempotency_key: Cow<'a, str>,
    /// The data: one JSON object, not decoded yet.
    #[serde(borrow)]
    pub data: &'a RawValue,
}

/// Why a record's value is not a valid envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvelopeError {
    /// The value is absent or empty.
    ValueEmpty,
    /// The value is larger than [`MAX_VALUE_BYTES`].
    ValueTooLarge,
    /// The value is not JSON in UTF-8.
    Json(Syntax),
    /// The value is JSON, but not a valid envelope.
    Envelope {
        /// The first wrong key; empty if the value as a whole is wrong, such as a list.
        key: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl EnvelopeError {
    /// Returns the stable code that dead letters carry.
    pub const fn code(&self) -> DeadCode {
        match self {
            Self::ValueEmpty => DeadCode::ValueEmpty,
            Self::ValueTooLarge => DeadCode::ValueTooLarge,
            Self::Json(_) => DeadCode::JsonInvalid,
            Self::Envelope { .. } => DeadCode::EnvelopeInvalid,
        }
    }
}

impl fmt::Display for EnvelopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ValueEmpty => f.write_str("the record has no value"),
            Self::ValueTooLarge => write!(f, "the value is larger than {MAX_VALUE_BYTES} bytes"),
            Self::Json(at) => write!(f, "not JSON: {} at line {} column {}", at.message, at.line, at.column),
            Self::Envelope { key: "", problem } => write!(f, "the envelope {problem}"),
            Self::Envelope { key, problem } => write!(f, "{key} {problem}"),
        }
    }
}

impl std::error::Error for EnvelopeError {}

/// Decodes an envelope. A record without a value counts as empty bytes. The whole value must be JSON at most 127 levels deep,
/// ignored members included.
pub fn decode_envelope(value: &[u8]) -> Result<Envelope<'_>, EnvelopeError> {
    if value.is_empty() {
        return Err(EnvelopeError::ValueEmpty);
    }
    if value.len() > MAX_VALUE_BYTES {
        return Err(EnvelopeError::ValueTooLarge);
    }
    let text = tree::utf8(value).map_err(EnvelopeError::Json)?;
    let envelope = serde_json::from_str::<Envelope<'_>>(text).map_err(|_| explain(text))?;
    // The parser checks ignored members neither for depth nor for unpaired surrogates.
    if opened(text) > SURELY_FLAT || text.contains("\\u") {
        tree::parse(text).map_err(EnvelopeError::Json)?;
    }
    check_length("eventId", &envelope.event_id)?;
    check_storable("eventId", &envelope.event_id)?;
    check_length("correlationId", &envelope.correlation_id)?;
    check_length("idempotencyKey", &envelope.idempotency_key)?;
    check_storable("idempotencyKey", &envelope.idempotency_key)?;
    if envelope.r#type.is_empty() {
        return Err(wrong("type", "must not be empty"));
    }
    if !envelope.data.get().starts_with('{') {
        return Err(wrong("data", "must be an object"));
    }
    Ok(envelope)
}

impl Envelope<'_> {
    /// Decodes the data of an accepted order and validates it by the rules of the proto.
    ///
    /// The error contains the readable part, so that further checks can add to it.
    pub fn created(&self) -> Result<OrderCreated, Box<Partial<OrderCreated>>> {
        data(self.data)
    }

    /// Decodes the data of a settled order, as [`Envelope::created`] does.
    pub fn settled(&self) -> Result<OrderSettled, Box<Partial<OrderSettled>>> {
        data(self.data)
    }
}

fn data<T: Shaped>(raw: &RawValue) -> Result<T, Box<Partial<T>>> {
    let message = match json::read::<T>(raw.get()) {
        Ok(message) => message,
        Err(JsonError::Fields(partial)) => return Err(partial),
        // Cannot happen, since the envelope was JSON and its data an object; a panic would stop the worker.
        Err(JsonError::Syntax(at)) => {
            let violation = Violation::new("", FieldCode::WrongType, at.message);
            return Err(Box::new(Partial { message: T::default(), violations: vec![violation] }));
        }
    };
    let violations = message.violations();
    if violations.is_empty() { Ok(message) } else { Err(Box::new(Partial { message, violations })) }
}

/// Counts the objects and lists that a text opens, in blocks that the compiler vectorises.
fn opened(text: &str) -> usize {
    let in_block = |block: &[u8]| -> u8 { block.iter().map(|b| u8::from(*b == b'{') | u8::from(*b == b'[')).sum() };
    text.as_bytes().chunks(128).map(|block| usize::from(in_block(block))).sum()
}

/// Finds the first wrong key of a value that could not be decoded.
#[cold]
fn explain(text: &str) -> EnvelopeError {
    let members = match tree::parse(text) {
        Err(syntax) => return EnvelopeError::Json(syntax),
        Ok(Node::Object(members)) => members,
        Ok(_) => return wrong("", "must be an object"),
    };
    for key in ["eventId", "type", "occurredAt", "correlationId", "idempotencyKey", "data"] {
        let mut values = members.iter().filter(|(name, _)| name == key).map(|(_, value)| value);
        let problem = match (values.next(), values.next()) {
            (None, _) => Some("is missing"),
            (_, Some(_)) => Some("occurs twice"),
            (Some(value), None) => problem(key, value),
        };
        if let Some(problem) = problem {
            return wrong(key, problem);
        }
    }
    wrong("", "does not have the form of an event")
}

fn problem(key: &str, value: &Node) -> Option<&'static str> {
    match (key, value) {
        ("data", Node::Object(_)) => None,
        ("data", _) => Some("must be an object"),
        ("occurredAt", Node::Text(time)) if Timestamp::parse(time).is_none() => Some("must be a time in RFC 3339"),
        (_, Node::Text(text)) if text.is_empty() => Some("must not be empty"),
        (_, Node::Text(_)) => None,
        _ => Some("must be a string"),
    }
}

fn check_length(key: &'static str, value: &str) -> Result<(), EnvelopeError> {
    if value.is_empty() {
        return Err(wrong(key, "must not be empty"));
    }
    if text::is_longer_than(value, MAX_TEXT) {
        return Err(wrong(key, "must have at most 255 characters"));
    }
    Ok(())
}

/// Database texts cannot contain U+0000. A correlation id may: it is replaced and never stored.
fn check_storable(key: &'static str, value: &str) -> Result<(), EnvelopeError> {
    if value.contains('\0') {
        return Err(wrong(key, "must not hold U+0000"));
    }
    Ok(())
}

const fn wrong(key: &'static str, problem: &'static str) -> EnvelopeError {
    EnvelopeError::Envelope { key, problem }
}
