//! Problems of the configuration, collected so that all are reported at once.

use std::fmt;

/// Something wrong with a setting or the command line, printed as `error[CODE] place: what it is, what it must be`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The kind of the problem, such as `CONFIG_VALUE`.
    pub code: &'static str,
    /// Where it is: a variable, a file, or the command line.
    pub place: String,
    pub text: String,
}

impl Problem {
    pub(super) fn new(code: &'static str, place: impl Into<String>, text: impl Into<String>) -> Self {
        Self { code, place: place.into(), text: text.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}] {}: {}", self.code, self.place, self.text)
    }
}

/// The problems found so far, in the order of the table of settings.
#[derive(Debug, Default)]
pub(super) struct Problems(pub Vec<Problem>);

impl Problems {
    pub fn add(&mut self, code: &'static str, setting: &str, text: impl Into<String>) {
        self.0.push(Problem::new(code, setting, text));
    }

    /// Returns whether a setting, or the file that it may be read from, has a problem.
    pub fn concern(&self, setting: &str) -> bool {
        self.0.iter().any(|problem| problem.place.strip_suffix("_FILE").unwrap_or(&problem.place) == setting)
    }
}
