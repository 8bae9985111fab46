//! Validation of messages by the rules of their protos.

use std::borrow::Cow;
use std::fmt::Write as _;

use minishop_core::violation::{FieldCode, Violation};

/// A validator's position in a message. It lives on the stack and becomes text only for a violation.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    name: &'static str,
    index: Option<usize>,
}

impl Path<'static> {
    /// The message itself.
    pub const ROOT: Self = Self { parent: None, name: "", index: None };
}

impl<'a> Path<'a> {
    /// Descends into a field.
    #[must_use]
    pub const fn field(&'a self, name: &'static str) -> Self {
        Self { parent: Some(self), name, index: None }
    }

    /// Descends into one entry of a list.
    #[must_use]
    pub const fn entry(&'a self, name: &'static str, index: usize) -> Self {
        Self { parent: Some(self), name, index: Some(index) }
    }

    /// Creates the violation of a field of the message at this path.
    #[cold]
    pub fn refuse(&self, name: &'static str, code: FieldCode, message: impl Into<Cow<'static, str>>) -> Violation {
        Violation::new(self.field(name).to_string(), code, message)
    }
}

impl std::fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some(parent) = self.parent else {
            return Ok(());
        };
        parent.fmt(f)?;
        if parent.parent.is_some() {
            f.write_char('.')?;
        }
        f.write_str(self.name)?;
        match self.index {
            Some(index) => write!(f, "[{index}]"),
            None => Ok(()),
        }
    }
}

/// Validates a message by the rules in its proto.
pub trait Validate {
    /// Adds violations to `out` in field order, at most one per field.
    fn check(&self, at: &Path<'_>, out: &mut Vec<Violation>);

    /// Returns all violations; without any, it does not allocate.
    fn violations(&self) -> Vec<Violation> {
        let mut out = Vec::new();
        self.check(&Path::ROOT, &mut out);
        out
    }
}
