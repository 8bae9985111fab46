//! Violations: what is wrong with a message, by field.

use std::borrow::Cow;
use std::fmt::Write as _;

/// What is wrong with a field, in order of precedence: of several codes that fit one field, the first is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FieldCode {
    /// The field occurs more than once.
    DuplicateField,
    /// The message has no such field.
    UnknownField,
    /// The value is of another JSON type.
    WrongType,
    /// The field must be given.
    Required,
    /// The text is too long.
    TooLong,
    /// The list has too many entries.
    TooMany,
    /// The text contains an invisible character.
    InvalidCharacter,
    /// The text does not have the form of the field.
    InvalidFormat,
    /// The value is not one of the known ones.
    UnknownValue,
    /// The value is known but not allowed here.
    NotAllowed,
    /// The number is too small, too large or not finite.
    OutOfRange,
    /// The amount has more decimals than its currency.
    TooManyDecimals,
    /// The sum exceeds the limit of an order.
    TotalTooLarge,
    /// We did not issue the token for this request.
    InvalidToken,
    /// Two fields exclude each other.
    Conflict,
}

impl FieldCode {
    /// Returns the code as clients see it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DuplicateField => "DUPLICATE_FIELD",
            Self::UnknownField => "UNKNOWN_FIELD",
            Self::WrongType => "WRONG_TYPE",
            Self::Required => "REQUIRED",
            Self::TooLong => "TOO_LONG",
            Self::TooMany => "TOO_MANY",
            Self::InvalidCharacter => "INVALID_CHARACTER",
            Self::InvalidFormat => "INVALID_FORMAT",
            Self::UnknownValue => "UNKNOWN_VALUE",
            Self::NotAllowed => "NOT_ALLOWED",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::TooManyDecimals => "TOO_MANY_DECIMALS",
            Self::TotalTooLarge => "TOTAL_TOO_LARGE",
            Self::InvalidToken => "INVALID_TOKEN",
            Self::Conflict => "CONFLICT",
        }
    }

    /// Returns whether violations inside the field are dropped: it is ambiguous, unreadable or too long.
    const fn hides_parts(self) -> bool {
        matches!(self, Self::DuplicateField | Self::WrongType | Self::TooMany)
    }
}

/// One wrong field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The path in proto names: `items[0].product_id`.
    pub field: String,
    /// What is wrong.
    pub code: FieldCode,
    /// What would be right, for a person. Contains no input.
    pub message: Cow<'static, str>,
    /// How many bytes at the end of `field` are the client's own name; `json_field` keeps them as sent.
    foreign: usize,
}

impl Violation {
    /// Creates a violation of a field given by its proto path.
    pub fn new(field: impl Into<String>, code: FieldCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { field: field.into(), code, message: message.into(), foreign: 0 }
    }

    /// Creates the violation of a name that the message at `parent` does not have. Keeps at most 64 characters of the name.
    pub(crate) fn unknown(parent: &Path<'_>, name: &str, message: Cow<'static, str>) -> Self {
        let shown = crate::text::shown(name);
        let mut field = parent.to_string();
        if !field.is_empty() {
            field.push('.');
        }
        field.push_str(&shown);
        Self { field, code: FieldCode::UnknownField, message, foreign: shown.len() }
    }

    /// Returns the path in JSON names: `items[0].productId`.
    pub fn json_field(&self) -> String {
        let (ours, theirs) = self.field.split_at(self.field.len() - self.foreign);
        let mut out = String::with_capacity(self.field.len());
        let mut upper = false;
        for c in ours.chars() {
            match c {
                '_' => upper = true,
                _ if upper => {
                    out.push(c.to_ascii_uppercase());
                    upper = false;
                }
                _ => out.push(c),
            }
        }
        out.push_str(theirs);
        out
    }
}

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

/// Merges the violations that several checks found in one message.
///
/// Each field keeps one, the first by precedence, at the position of its first mention. Violations inside a field that is
/// ambiguous, unreadable or too long are dropped.
pub fn settle(violations: Vec<Violation>) -> Vec<Violation> {
    use std::collections::HashMap;

    let mut order: Vec<Violation> = Vec::with_capacity(violations.len());
    let mut places: HashMap<String, usize> = HashMap::with_capacity(violations.len());
    for violation in violations {
        match places.get(&violation.field) {
            None => {
                places.insert(violation.field.clone(), order.len());
                order.push(violation);
            }
            Some(&place) if violation.code < order[place].code => order[place] = violation,
            Some(_) => {}
        }
    }
    let hidden = |field: &str| {
        field
            .char_indices()
            .filter(|(_, c)| matches!(c, '.' | '['))
            .filter_map(|(end, _)| places.get(&field[..end]))
            .any(|&place| order[place].code.hides_parts())
    };
    let keep: Vec<bool> = order.iter().map(|v| !hidden(&v.field)).collect();
    let mut keep = keep.into_iter();
    order.retain(|_| keep.next().unwrap_or(true));
    order
}
