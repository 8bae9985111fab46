//! `minishop migrate`: brings the schema up to date, in PostgreSQL or in the data directory.

use std::process::ExitCode;

use minishop_platform::boot::{self, refuse};
use minishop_platform::config::Config;
use minishop_store::{postgres, sqlite};
use secrecy::ExposeSecret;

use crate::cli::EXIT_UNREACHABLE;

/// Migrates and prints the version; exit 69 when the database does not answer.
pub async fn run(config: Config) -> ExitCode {
    let migrated = match &config.database_url {
        Some(url) => postgres::migrate(url.expose_secret()).await,
        None => match boot::lock_data_dir(&config.data_dir) {
            Ok(_lock) => sqlite::migrate(&config.store_file()).await,
            Err(error) => return refuse(&[format!("{error:#}")]),
        },
    };
    match migrated {
        Ok(version) => boot::print(&format!("the schema is at version {version}\n")),
        Err(error) if error.is_retry() => {
            eprintln!("{:#}", boot::store_refused(error));
            ExitCode::from(EXIT_UNREACHABLE)
        }
        Err(error) => refuse(&[format!("{:#}", boot::store_refused(error))]),
    }
}
