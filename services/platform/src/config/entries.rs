//! The kinds of entries in a table of settings.

use std::path::PathBuf;

use clap::{Arg, value_parser};
use secrecy::SecretString;

use super::print::Shown;
use super::setting::{Entry, Given};
use super::values::{self, shown};

/// Returns an argument of the command line; `id` is its flag with underscores.
pub(super) fn arg(id: &str, variable: &str, value_name: &'static str, help: &str) -> Arg {
    let help = help.trim().trim_end_matches('.').to_owned();
    Arg::new(id.to_owned()).long(id.replace('_', "-")).global(true).env(variable.to_owned()).value_name(value_name).help(help)
}

/// An [`arg`] that takes a path.
pub(super) fn path_arg(id: &str, variable: &str, value_name: &'static str, help: &str) -> Arg {
    arg(id, variable, value_name, help).value_parser(value_parser!(PathBuf))
}

/// Parses a value; the error continues it: what it is not, and what to give instead.
type Read<T> = fn(&str) -> Result<T, String>;

/// A setting with a default.
pub(super) struct Setting<T> {
    variable: &'static str,
    value_name: &'static str,
    default: Default,
    read: Read<T>,
    show: fn(&T) -> toml::Value,
    is_switch: bool,
    is_private: bool,
}

enum Default {
    /// In the help.
    Fixed(&'static str),
    /// Computed from other settings; the help says how.
    Derived(fn(&Given) -> String),
    None,
}

/// A setting with a default that the help shows.
pub(super) fn setting<T: Shown>(
    variable: &'static str,
    value_name: &'static str,
    default: &'static str,
    read: Read<T>,
) -> Setting<T> {
    Setting { variable, value_name, default: Default::Fixed(default), read, show: T::shown, is_switch: false, is_private: false }
}

/// A setting whose default depends on other settings.
pub(super) fn derived<T: Shown>(
    variable: &'static str,
    value_name: &'static str,
    default: fn(&Given) -> String,
    read: Read<T>,
) -> Setting<T> {
    Setting { default: Default::Derived(default), ..setting(variable, value_name, "", read) }
}

/// A boolean that is off by default; its flag alone sets it.
pub(super) fn switch(variable: &'static str) -> Setting<bool> {
    Setting { is_switch: true, ..setting(variable, "BOOLEAN", "false", values::boolean) }
}

impl<T> Setting<T> {
    /// Prints the value in another form than others of its type.
    pub fn shown_as(self, show: fn(&T) -> toml::Value) -> Self {
        Self { show, ..self }
    }

    /// Parses a value and shows it, or reports a problem.
    fn parse(&self, given: &mut Given, text: &str) -> Option<T> {
        match (self.read)(text) {
            Ok(value) => {
                given.show(self.variable, (self.show)(&value));
                Some(value)
            }
            Err(problem) => {
                given.refuse(self.variable, if self.is_private { problem } else { format!("{} {problem}", shown(text)) });
                None
            }
        }
    }
}

impl<T> Entry for Setting<T> {
    type Value = T;

    fn args(&self, field: &str, help: &str) -> Vec<Arg> {
        let mut arg = arg(field, self.variable, self.value_name, help);
        if let Default::Fixed(default) = self.default {
            arg = arg.default_value(default);
        }
        if self.is_switch {
            arg = arg.num_args(0..=1).default_missing_value("true");
        }
        vec![arg]
    }

    fn read(&self, given: &mut Given) -> T {
        let default = match self.default {
            Default::Fixed(default) => default.to_owned(),
            Default::Derived(default) => default(given),
            Default::None => String::new(),
        };
        let text = given.text(self.variable).unwrap_or_else(|| default.clone());
        self.parse(given, &text).unwrap_or_else(|| (self.read)(&default).expect("the default of a setting is valid"))
    }
}

/// A setting without a default; an empty value is none.
pub(super) struct Optional<T>(Setting<T>);

pub(super) fn optional<T: Shown>(variable: &'static str, value_name: &'static str, read: Read<T>) -> Optional<T> {
    Optional(Setting { default: Default::None, ..setting(variable, value_name, "", read) })
}

impl<T> Optional<T> {
    /// Repeats nothing of a wrong value, which may contain a password.
    pub fn private(self) -> Self {
        Self(Setting { is_private: true, ..self.0 })
    }
}

impl<T> Entry for Optional<T> {
    type Value = Option<T>;

    fn args(&self, field: &str, help: &str) -> Vec<Arg> {
        self.0.args(field, help)
    }

    fn read(&self, given: &mut Given) -> Option<T> {
        let text = given.text(self.0.variable).filter(|text| !text.is_empty())?;
        self.0.parse(given, &text)
    }
}

/// A secret, given itself or as the file that contains it. Never printed.
pub(super) struct Secret<T> {
    pub variable: &'static str,
    pub value_name: &'static str,
    /// The help of its second flag, which ends in `-file`.
    pub file_help: &'static str,
    pub read: fn(SecretString) -> Result<T, String>,
}

impl<T> Entry for Secret<T> {
    type Value = Option<T>;

    fn args(&self, field: &str, help: &str) -> Vec<Arg> {
        let file = path_arg(&format!("{field}_file"), &format!("{}_FILE", self.variable), "FILE", self.file_help);
        vec![arg(field, self.variable, self.value_name, help).hide_env_values(true), file]
    }

    fn read(&self, given: &mut Given) -> Option<T> {
        let file_variable = format!("{}_FILE", self.variable);
        let own = given.text(self.variable).filter(|secret| !secret.is_empty()).map(SecretString::from);
        let secret = match given.os_text(&file_variable).filter(|path| !path.is_empty()).map(PathBuf::from) {
            None => own?,
            Some(path) => {
                if own.is_some() {
                    let text = format!("is set together with {file_variable}; set only one of them");
                    given.problems.add("CONFIG_RELATION", self.variable, text);
                }
                let wrong = |problem| format!("{} {problem}", path.display());
                let read = values::secret_file(&path).map_err(wrong);
                read.map_err(|text| given.problems.add("SECRET_FILE", &file_variable, text)).ok()?
            }
        };
        given.show(self.variable, "(hidden)".into());
        (self.read)(secret).map_err(|problem| given.refuse(self.variable, problem)).ok()
    }
}

/// A directory; not checked.
pub(super) struct Directory {
    pub variable: &'static str,
    pub default: &'static str,
}

impl Entry for Directory {
    type Value = PathBuf;

    fn args(&self, field: &str, help: &str) -> Vec<Arg> {
        vec![path_arg(field, self.variable, "DIRECTORY", help).default_value(self.default)]
    }

    fn read(&self, given: &mut Given) -> PathBuf {
        let path = given.os_text(self.variable).map_or_else(|| self.default.into(), PathBuf::from);
        given.show(self.variable, path.display().to_string().into());
        path
    }
}
