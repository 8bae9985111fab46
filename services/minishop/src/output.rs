//! Printing: tables for people, JSON for programs.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use comfy_table::{Table, presets};
use minishop_platform::boot::print;
use serde_json::Value;

/// How a listing is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// Text for people.
    Table,
    /// JSON for programs.
    Json,
}

/// Prints rows under headings.
pub fn table<const N: usize>(headings: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> ExitCode {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(headings);
    for row in rows {
        table.add_row(row);
    }
    print(&format!("{table}\n"))
}

/// Replaces control characters: foreign text must not control the terminal.
pub fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Formats a member of a JSON object for a table; an absent one is empty.
pub fn cell(row: &Value, name: &str) -> String {
    match &row[name] {
        Value::Null => String::new(),
        Value::String(text) => visible(text),
        other => other.to_string(),
    }
}

/// Returns whether a person at a terminal can be asked.
pub fn can_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks the person at the terminal; returns whether the answer is yes.
pub fn confirmed(question: &str) -> bool {
    eprint!("{question} [y/N] ");
    let _ = std::io::stderr().flush();
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).is_ok() && matches!(line.trim(), "y" | "Y" | "yes")
}

/// Prints and flushes one line. Returns whether standard output is still open.
pub fn line(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).is_ok()
}

/// Prints a value as indented JSON.
pub fn json(value: &impl serde::Serialize) -> ExitCode {
    let text = serde_json::to_string_pretty(value).expect("our own rows are JSON");
    print(&format!("{text}\n"))
}
