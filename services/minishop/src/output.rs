//! Printing: tables for people, JSON for programs.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use comfy_table::{Table, presets};

/// How a listing is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// Columns with a heading.
    Table,
    /// One JSON document.
    Json,
}

/// Prints text. A reader that has seen enough (`| head -1`) is no failure.
pub fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error[OUTPUT] stdout: {error}");
            ExitCode::from(crate::cli::EXIT_NO)
        }
    }
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

/// Prints a value as indented JSON.
pub fn json(value: &impl serde::Serialize) -> ExitCode {
    let text = serde_json::to_string_pretty(value).expect("our own rows are JSON");
    print(&format!("{text}\n"))
}
