//! Printing: tables for people, JSON for programs.

use std::process::ExitCode;

use comfy_table::{Table, presets};
use minishop_platform::boot::print;

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

/// Prints and flushes one line. Returns whether standard output is still open.
pub fn line(text: &str) -> bool {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).is_ok()
}

/// Prints a value as indented JSON.
pub fn json(value: &impl serde::Serialize) -> ExitCode {
    let text = serde_json::to_string_pretty(value).expect("our own rows are JSON");
    print(&format!("{text}\n"))
}
