//! The command line: its commands and their exit codes.

mod tree;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use minishop_platform::boot::{block_on, print, refuse};
use minishop_platform::config::sources::{self, Parsed};
use minishop_platform::config::{Config, Flags, Problem, Shape};

/// The answer is no: refused, not found, a check failed.
pub const EXIT_NO: u8 = 1;
/// The server, the database or the brokers do not answer.
pub const EXIT_UNREACHABLE: u8 = 69;

/// An event-driven order service. Without a command, all roles run in one process.
#[derive(Debug, Parser)]
#[command(
    name = "minishop",
    disable_version_flag = true,
    after_help = "Server settings: minishop up --help · Exit codes: 0 done · 1 the answer is no: refused, not found, a check failed · 2 invalid command line or configuration, or a problem to fix before a start · 69 not reachable · 70 a core task panicked or ended early · 74 fsync failed"
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
    /// Run all roles in one process (the default), on embedded parts unless PostgreSQL or Kafka is set.
    Up,
    /// Run the API on PostgreSQL and Kafka.
    Api,
    /// Run the worker on PostgreSQL and Kafka.
    Worker,
    /// Apply pending schema migrations to the database.
    Migrate,
    /// Create or check the topics, or skip unreadable records.
    Topics(crate::topics::Args),
    /// List events that wait to be published, and unblock stuck shards.
    Outbox(crate::outbox::Args),
    /// Create, read, watch, cancel and announce orders on a running server.
    Order(crate::order::Args),
    /// Inspect dead letters, process them again (redrive), or give them up (discard).
    Dlq(crate::dlq::Args),
    /// Follow published events, or publish past events again.
    Events(crate::events::Args),
    /// Load-test a running server, and print rates and latencies.
    Bench(crate::bench::Args),
    /// Check or print the configuration.
    Config(crate::config::Args),
}

/// Reads the command line and runs the command.
pub fn run() -> ExitCode {
    match sources::parse::<Cli>(Cli::command(), tree::with_settings) {
        Parsed::Command(cli, problems) => dispatch(cli, problems),
        Parsed::Text(text) => print(&text),
        Parsed::Problems(problems) => refuse(&problems),
    }
}

fn dispatch(cli: Cli, problems: Vec<Problem>) -> ExitCode {
    if cli.version {
        return block_on(async { print(&version().await) });
    }
    let settings = Settings { flags: cli.flags, problems };
    match cli.command.unwrap_or(Command::Up) {
        Command::Up => role(settings, Shape::Up, crate::up::run),
        Command::Api => role(settings, Shape::Api, crate::api::run),
        Command::Worker => role(settings, Shape::Worker, crate::worker::run),
        Command::Migrate => role(settings, Shape::Up, crate::migrate::run),
        Command::Topics(args) => role(settings, Shape::Up, |config| crate::topics::run(args, config)),
        Command::Outbox(args) => role(settings, Shape::Up, |config| crate::outbox::run(args, config)),
        Command::Events(args) => role(settings, Shape::Up, |config| crate::events::run(args, config)),
        Command::Config(args) => crate::config::run(&args, settings),
        // Clients take no settings of servers; only wrong names of settings are refused.
        Command::Order(_) | Command::Dlq(_) | Command::Bench(_) if !settings.problems.is_empty() => refuse(&settings.problems),
        Command::Order(args) => block_on(crate::order::run(args)),
        Command::Dlq(args) => block_on(crate::dlq::run(args)),
        Command::Bench(args) => block_on(crate::bench::command(args)),
    }
}

/// The settings as given, and what is wrong with their names.
#[derive(Debug)]
pub struct Settings {
    flags: Flags,
    problems: Vec<Problem>,
}

impl Settings {
    /// Checks everything.
    pub fn check(self, shape: Shape) -> Result<Config, Vec<Problem>> {
        self.flags.check(shape, self.problems)
    }

    /// Checks everything, and formats the effective settings as a configuration file.
    pub fn print(self, shape: Shape) -> Result<String, Vec<Problem>> {
        self.flags.print(shape, self.problems)
    }
}

fn role<F: Future<Output = ExitCode>>(settings: Settings, shape: Shape, run: impl FnOnce(Config) -> F) -> ExitCode {
    match settings.check(shape) {
        Ok(config) => block_on(run(config)),
        Err(problems) => refuse(&problems),
    }
}

async fn version() -> String {
    format!(
        "minishop {}\nlibrdkafka {}\nSQLite {}\n",
        env!("CARGO_PKG_VERSION"),
        minishop_bus::topics::client_version(),
        minishop_store::sqlite::library_version().await.unwrap_or_else(|_| "unknown".to_owned())
    )
}

#[cfg(test)]
mod tests;
