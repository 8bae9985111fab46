//! The configuration file: TOML, one `key = value` for each setting.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::Problem;
use super::names::unknown_key;
use super::setting::key_of;

/// Returns the file that the command line or the environment names.
pub(super) fn path_of(args: &[OsString], variables: &BTreeMap<String, String>) -> Option<PathBuf> {
    let mut args = args.iter().skip(1).map(|arg| arg.to_string_lossy()).take_while(|arg| arg != "--");
    while let Some(arg) = args.next() {
        if arg == "--config" {
            return args.next().map(|path| path.into_owned().into());
        }
        if let Some(path) = arg.strip_prefix("--config=") {
            return Some(path.into());
        }
    }
    variables.get("MINISHOP_CONFIG").filter(|path| !path.is_empty()).map(Into::into)
}

/// Reads the file. `known` are the variables of the settings, with the ids of their flags; returns ids with values, and problems.
pub(super) fn read(path: &Path, known: &[(String, String)]) -> (Vec<(String, String)>, Vec<Problem>) {
    let place = path.display().to_string();
    let (mut values, mut problems) = (Vec::new(), Vec::new());
    let table = match read_table(path, &place) {
        Ok(table) => table,
        Err(problem) => return (values, vec![problem]),
    };
    for (key, value) in table {
        let Some((_, id)) = known.iter().find(|(name, _)| key_of(name) == key) else {
            let keys: Vec<String> = known.iter().map(|(name, _)| key_of(name)).collect();
            problems.push(unknown_key(&place, &key, keys.iter().map(String::as_str)));
            continue;
        };
        match value {
            toml::Value::String(text) => values.push((id.clone(), text)),
            toml::Value::Integer(number) => values.push((id.clone(), number.to_string())),
            toml::Value::Boolean(truth) => values.push((id.clone(), truth.to_string())),
            other => {
                let text = format!("{key} is a {}; give a string, a whole number, true or false", other.type_str());
                problems.push(Problem::new("CONFIG_VALUE", &place, text));
            }
        }
    }
    (values, problems)
}

fn read_table(path: &Path, place: &str) -> Result<toml::Table, Problem> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Problem::new("CONFIG_VALUE", place, format!("cannot be read: {error}; name a TOML file with --config"))
    })?;
    toml::from_str(&text).map_err(|error| {
        let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
        let (message, example) = (error.message(), "write TOML such as http_addr = \"127.0.0.1:3000\"");
        Problem::new("CONFIG_VALUE", format!("{place} line {line}"), format!("{message}; {example}"))
    })
}
