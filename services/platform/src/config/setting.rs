//! What a setting is: one entry of [`settings!`], which says how it is given, read and printed.

use std::ffi::{OsStr, OsString};

use clap::Arg;

use super::problems::Problems;
use super::{Flags, Shape};

/// Defines a struct of settings. The name of a field is its flag, with dashes; its documentation is the flag's help; the entry
/// behind `=` names the variable and reads the value.
macro_rules! settings {
    ($(#[$about:meta])* $vis:vis struct $name:ident {
        $($(#[doc = $help:literal])+ $field:ident: $type:ty = $entry:expr;)+
    }) => {
        $(#[$about])*
        #[derive(Debug, Clone)]
        $vis struct $name {
            $($(#[doc = $help])+ $vis $field: $type,)+
        }

        impl $crate::config::setting::Settings for $name {
            fn args() -> Vec<clap::Arg> {
                use $crate::config::setting::Entry as _;
                let mut args = Vec::new();
                $(args.extend($entry.args(stringify!($field), concat!($($help),+)));)+
                args
            }

            fn read(given: &mut $crate::config::setting::Given) -> Self {
                use $crate::config::setting::Entry as _;
                Self { $($field: $entry.read(given),)+ }
            }
        }
    };
}
pub(super) use settings;

/// Values that are read from settings.
pub(super) trait Settings: Sized {
    /// Returns the arguments of the command line that give the settings.
    fn args() -> Vec<Arg>;
    /// Reads the settings. A setting with a problem has its default, so that the rest can be checked.
    fn read(given: &mut Given) -> Self;
}

/// An entry of [`settings!`]; `entries` has the kinds.
pub(super) trait Entry {
    type Value;
    fn args(&self, field: &str, help: &str) -> Vec<Arg>;
    fn read(&self, given: &mut Given) -> Self::Value;
}

/// The effective settings as keys and values of the configuration file.
pub(super) type Lines = Vec<(String, toml::Value)>;

/// The settings as given, and what reading them has found.
#[derive(Debug)]
pub(super) struct Given {
    pub shape: Shape,
    pub problems: Problems,
    pub lines: Lines,
    flags: Flags,
}

impl Given {
    pub fn new(flags: Flags, shape: Shape, problems: Problems) -> Self {
        Self { shape, problems, lines: Vec::new(), flags }
    }

    /// Returns a value as given, also if it is not valid.
    pub fn text(&self, variable: &str) -> Option<String> {
        self.os_text(variable)?.to_str().map(str::to_owned)
    }

    pub fn os_text(&self, variable: &str) -> Option<&OsStr> {
        self.flags.0.get(variable).map(OsString::as_os_str)
    }

    /// Reports a value that is not valid.
    pub fn refuse(&mut self, variable: &str, problem: String) {
        self.problems.add("CONFIG_VALUE", variable, problem);
    }

    /// Adds a line to `minishop config print`.
    pub fn show(&mut self, variable: &str, value: toml::Value) {
        self.lines.push((key_of(variable), value));
    }
}

/// Returns a variable's key in the configuration file.
pub(super) fn key_of(variable: &str) -> String {
    variable.strip_prefix("MINISHOP_").unwrap_or(variable).to_lowercase()
}
