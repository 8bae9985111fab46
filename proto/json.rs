//! Canonical proto3 JSON: written exactly, commands read strictly.
//!
//! Reading is one pass of generated code. Only when that fails is the JSON compared with the message's [`Shape`], which
//! finds everything that is wrong at once and saves what can be read, so that the other checks can speak too.

mod number;
mod shape;
pub(crate) mod tree;
pub(crate) mod walk;
mod write;

pub(crate) use number::{FromJson, Number};
pub use shape::{Field, Kind, Shape, Shaped};
pub use write::{append, to_vec};

use serde_json::Value;

use crate::violation::{Violation, settle};
use tree::Node;

/// Why bytes are not the message that they should be.
#[derive(Debug)]
pub enum JsonError<T> {
    /// They are not one JSON object in UTF-8.
    Syntax(Syntax),
    /// They are an object whose members do not fit.
    Fields(Box<Partial<T>>),
}

/// Where bytes stop being JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syntax {
    /// The line, from 1.
    pub line: usize,
    /// The column in bytes, from 1; 0 before the first byte.
    pub column: usize,
    /// What is wrong there. Holds nothing of the input.
    pub message: String,
}

/// What could be read of a message whose members do not fit.
#[derive(Debug)]
pub struct Partial<T> {
    /// The message without the members that do not fit. A list keeps the places of its entries.
    pub message: T,
    /// What does not fit: names given twice, unknown names, wrong types.
    pub violations: Vec<Violation>,
}

impl<T: Shaped> Partial<T> {
    /// Checks what could be read as well, and gives all that is wrong, one violation for each field.
    ///
    /// Violations that were found elsewhere may be added to `violations` before.
    pub fn into_violations(self) -> Vec<Violation> {
        let mut all = self.violations;
        self.message.check(&crate::Path::ROOT, &mut all);
        settle(all)
    }
}

/// Reads a command: one JSON object in UTF-8, each member known, given once and of its type. Its values are not checked.
pub fn decode_command<T: Shaped>(bytes: &[u8]) -> Result<T, JsonError<T>> {
    read(tree::utf8(bytes).map_err(JsonError::Syntax)?)
}

/// Reads a message from a text.
pub(crate) fn read<T: Shaped>(text: &str) -> Result<T, JsonError<T>> {
    match serde_json::from_str(text) {
        // The generated reader forgets that it saw a null, so it misses a second member of that name.
        Ok(message) if !text.contains("null") => Ok(message),
        _ => compare(text),
    }
}

/// Reads a message by its shape, slowly and completely.
#[cold]
fn compare<T: Shaped>(text: &str) -> Result<T, JsonError<T>> {
    let Node::Object(members) = tree::parse(text).map_err(JsonError::Syntax)? else {
        return Err(JsonError::Syntax(tree::not_an_object(text)));
    };
    let mut violations = Vec::new();
    let fitting = walk::message(T::SHAPE, members, &mut violations);
    let message = T::deserialize(Value::Object(fitting))
        .map_err(|_| JsonError::Syntax(tree::at(text, 0, "does not fit its message")))?;
    if violations.is_empty() {
        Ok(message)
    } else {
        Err(JsonError::Fields(Box::new(Partial {
            message,
            violations,
        })))
    }
}
