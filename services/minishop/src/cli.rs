//! The command line: which commands there are, and how they end.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use minishop_platform::boot;
use minishop_platform::config::sources::{self, Parsed};
use minishop_platform::config::{Config, Flags, Shape};

/// The answer is no: refused, not found, a check failed.
pub const EXIT_NO: u8 = 1;
/// What was asked does not answer.
pub const EXIT_UNREACHABLE: u8 = 69;

/// An event-driven order service. Without a command, all roles run in one process on embedded parts.
#[derive(Debug, Parser)]
#[command(
    name = "minishop",
    disable_version_flag = true,
    after_help = "Exit codes: 0 done · 1 the answer is no: refused, not found, a check failed · 2 command line, configuration, or what a person must mend before a start · 69 not reachable · 70 a core task panicked or ended early · 74 the disk did not confirm a write"
)]
struct Cli {
    /// Print the versions of MiniShop, librdkafka and SQLite.
    #[arg(long, short = 'V')]
    version: bool,
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run all roles in one process (the default).
    Up,
    /// Run the API on PostgreSQL and Kafka.
    Api,
    /// Run the worker on PostgreSQL and Kafka.
    Worker,
    /// Bring the database's schema up to date.
    Migrate,
    /// Make or check the topics on Kafka.
    Topics(crate::topics::Args),
    /// Create and read orders on a running server.
    Order(crate::order::Args),
    /// Follow what is published.
    Events(crate::events::Args),
    /// Load a running server; print rates and latencies.
    Bench(crate::bench::Args),
    /// Check or print the configuration.
    Config(crate::config::Args),
}

/// Reads the command line and runs the command.
pub fn run() -> ExitCode {
    match sources::parse::<Cli>() {
        Parsed::Command(cli) => dispatch(cli),
        Parsed::Text(text) => crate::output::print(&text),
        Parsed::Problems(problems) => refuse(&problems),
    }
}

fn dispatch(cli: Cli) -> ExitCode {
    if cli.version {
        return block_on(async { crate::output::print(&version().await) });
    }
    let flags = cli.flags;
    match cli.command.unwrap_or(Command::Up) {
        Command::Up => role(flags, Shape::Up, crate::up::run),
        Command::Api => role(flags, Shape::Api, crate::api::run),
        Command::Worker => role(flags, Shape::Worker, crate::worker::run),
        Command::Migrate => role(flags, Shape::Up, crate::migrate::run),
        Command::Topics(args) => role(flags, Shape::Up, |config| crate::topics::run(args, config)),
        Command::Order(args) => block_on(crate::order::run(args)),
        Command::Events(args) => role(flags, Shape::Up, |config| crate::events::run(args, config)),
        Command::Bench(args) => block_on(crate::bench::command(args)),
        Command::Config(args) => crate::config::run(&args, flags),
    }
}

fn role<F: Future<Output = ExitCode>>(flags: Flags, shape: Shape, run: impl FnOnce(Config) -> F) -> ExitCode {
    match flags.check(shape) {
        Ok(config) => block_on(run(config)),
        Err(problems) => refuse(&problems),
    }
}

fn block_on(run: impl Future<Output = ExitCode>) -> ExitCode {
    match boot::runtime() {
        Ok(runtime) => {
            let code = runtime.block_on(run);
            // Threads that still block, such as a consumer that closes, must not hold up the exit.
            runtime.shutdown_timeout(Duration::from_secs(2));
            code
        }
        Err(error) => refuse(&[format!("error[START_FAILED] runtime: {error:#}")]),
    }
}

/// Writes problems to standard error, one a line.
pub fn refuse(problems: &[String]) -> ExitCode {
    for problem in problems {
        eprintln!("{problem}");
    }
    ExitCode::from(boot::EXIT_USAGE)
}

async fn version() -> String {
    format!(
        "minishop {}\nlibrdkafka {}\nSQLite {}\n",
        env!("CARGO_PKG_VERSION"),
        minishop_platform::bus::topics::client_version(),
        minishop_platform::store::sqlite::library_version().await.unwrap_or_else(|_| "unknown".to_owned())
    )
}
