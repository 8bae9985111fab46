//! What is wrong with a message, field by field.

use std::borrow::Cow;
use std::fmt::Write as _;

/// What is wrong with a field. Declared in order of precedence: of several codes that fit one field, the first is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FieldCode {
    /// The field stands there more than once.
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
    /// The text holds a character that a person cannot see.
    InvalidCharacter,
    /// The text is not of the form that the field asks for.
    InvalidFormat,
    /// The value is none of the known ones.
    UnknownValue,
    /// The value is known, and not allowed here.
    NotAllowed,
    /// The number is too small, too large, or none.
    OutOfRange,
    /// The amount has more decimals than its currency.
    TooManyDecimals,
    /// The sum is more than an order may be worth.
    TotalTooLarge,
    /// The token was not given out by us for this request.
    InvalidToken,
    /// Two fields exclude each other.
    Conflict,
}

impl FieldCode {
    /// Gives the code as clients see it.
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

    /// Tells whether the field's parts are not looked at: they are ambiguous, unreadable or too many.
    const fn hides_parts(self) -> bool {
        matches!(self, Self::DuplicateField | Self::WrongType | Self::TooMany)
    }
}

/// One wrong field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Where, in proto names: `items[0].product_id`.
    pub field: String,
    /// What is wrong.
    pub code: FieldCode,
    /// What would be right, for a person. Holds nothing of the input.
    pub message: Cow<'static, str>,
    /// How many bytes at the end of `field` are the client's own name, which is shown as it was sent.
    foreign: usize,
}

impl Violation {
    /// Makes a violation of a field given by its proto path.
    pub fn new(field: impl Into<String>, code: FieldCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { field: field.into(), code, message: message.into(), foreign: 0 }
    }

    /// Makes the violation of a name that the message at `parent` does not have. At most 64 characters of the name are kept.
    pub(crate) fn unknown(parent: &Path<'_>, name: &str, message: Cow<'static, str>) -> Self {
        let shown = crate::text::shown(name);
        let mut field = parent.to_string();
        if !field.is_empty() {
            field.push('.');
        }
        field.push_str(&shown);
        Self { field, code: FieldCode::UnknownField, message, foreign: shown.len() }
    }

    /// Gives the path in JSON names: `items[0].productId`.
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

/// Where a validator stands in a message. It lives on the stack, and becomes text only when something is wrong.
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
    /// Goes into a field.
    #[must_use]
    pub const fn field(&'a self, name: &'static str) -> Self {
        Self { parent: Some(self), name, index: None }
    }

    /// Goes into one entry of a list.
    #[must_use]
    pub const fn entry(&'a self, name: &'static str, index: usize) -> Self {
        Self { parent: Some(self), name, index: Some(index) }
    }

    /// Makes the violation of a field of the message that stands here.
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

/// Checks a message by the rules that its proto states.
pub trait Validate {
    /// Adds what is wrong to `out`, in the order of the fields, at most one violation for each field.
    fn check(&self, at: &Path<'_>, out: &mut Vec<Violation>);

    /// Gives everything that is wrong; empty, without an allocation, when nothing is.
    fn violations(&self) -> Vec<Violation> {
        let mut out = Vec::new();
        self.check(&Path::ROOT, &mut out);
        out
    }
}

/// Merges violations of one message that were found in several ways.
///
/// Each field keeps one, the first by precedence, at the place of its first mention. Parts of a field that could not be
/// read or has too many entries are left out.
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
