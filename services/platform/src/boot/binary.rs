//! The frame of every binary: command line, runtime and exit code.

use std::fmt::Display;
use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use minishop_bus::topics::client_version;

use super::process::Process;
use super::{EXIT_USAGE, runtime};
use crate::config::sources::{self, Parsed};
use crate::config::{Flags, Shape};
use crate::ctx::{Ctx, Task};

/// A binary that plays one role.
#[derive(Debug, Parser)]
#[command(
    disable_version_flag = true,
    after_help = "Exit codes: 0 done · 2 invalid command line or configuration, or a problem to fix before a start · 70 a core task panicked or ended early · 74 fsync failed"
)]
struct Cli {
    /// Print the versions of MiniShop and librdkafka.
    #[arg(long, short = 'V')]
    version: bool,
    #[command(flatten)]
    flags: Flags,
}

/// Runs a single-role binary, from its command line to its exit code.
pub fn main(
    name: &'static str,
    about: &'static str,
    shape: Shape,
    roles: impl AsyncFnOnce(Ctx) -> anyhow::Result<Vec<Task>>,
) -> ExitCode {
    let command = Cli::command().name(name).bin_name(name).about(about);
    let (cli, problems) = match sources::parse::<Cli>(command, |command| command) {
        Parsed::Command(cli, problems) => (cli, problems),
        Parsed::Text(text) => return print(&text),
        Parsed::Problems(problems) => return refuse(&problems),
    };
    if cli.version {
        return print(&format!("{name} {}\nlibrdkafka {}\n", env!("CARGO_PKG_VERSION"), client_version()));
    }
    match cli.flags.check(shape, problems) {
        Ok(config) => block_on(Process { name, shape, config, open_log: None }.run(roles)),
        Err(problems) => refuse(&problems),
    }
}

/// Runs to the exit code on its own runtime.
pub fn block_on(run: impl Future<Output = ExitCode>) -> ExitCode {
    match runtime() {
        Ok(runtime) => {
            let code = runtime.block_on(run);
            // Blocked threads, such as a closing consumer, must not delay the exit.
            runtime.shutdown_timeout(Duration::from_secs(2));
            code
        }
        Err(error) => refuse(&[format!("error[START_FAILED] runtime: {error:#}")]),
    }
}

/// Writes problems to standard error, one per line.
pub fn refuse(problems: &[impl Display]) -> ExitCode {
    for problem in problems {
        eprintln!("{problem}");
    }
    ExitCode::from(EXIT_USAGE)
}

/// Prints text. A closed pipe (`| head -1`) is not a failure.
pub fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error[OUTPUT] stdout: {error}");
            ExitCode::FAILURE
        }
    }
}
