//! `minishop config`: checks or prints the settings.

use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};
use minishop_platform::boot::{print, refuse};
use minishop_platform::config::Shape;

use crate::cli::Settings;

/// What to do with the configuration.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Check the settings and report all problems at once; exit 2 if there is one.
    Check(Of),
    /// Print the effective settings as a configuration file, secrets hidden.
    Print(Of),
}

#[derive(Debug, clap::Args)]
struct Of {
    /// The process that the configuration is for.
    #[arg(value_enum, default_value_t = Role::Up)]
    role: Role,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Role {
    Up,
    Api,
    Worker,
}

/// Checks the settings and, if asked to, prints them.
pub fn run(args: &Args, settings: Settings) -> ExitCode {
    let (What::Check(of) | What::Print(of)) = &args.what;
    let shape = match of.role {
        Role::Up => Shape::Up,
        Role::Api => Shape::Api,
        Role::Worker => Shape::Worker,
    };
    let text = match &args.what {
        What::Check(_) => settings.check(shape).map(|_| "the configuration is valid\n".to_owned()),
        What::Print(_) => settings.print(shape),
    };
    text.map_or_else(|problems| refuse(&problems), |text| print(&text))
}
