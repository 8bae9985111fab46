//! The database, for commands that use it directly, beside running servers.

use std::process::ExitCode;
use std::sync::Arc;

use minishop_core::clock::Timestamp;
use minishop_core::ids::{ClientId, CorrelationId, Ids as _};
use minishop_platform::boot;
use minishop_platform::clock::{SystemClock, SystemIds};
use minishop_platform::config::Config;
use minishop_store::error::OpenError;
use minishop_store::postgres::{self, PostgresSettings};
use minishop_store::{RequestedBy, Store, StoreError, sqlite};
use secrecy::ExposeSecret as _;

use crate::cli::{EXIT_NO, EXIT_UNREACHABLE};

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// The request was refused.
    No(String),
    /// The database or the brokers do not answer.
    Unreachable(String),
}

impl Failure {
    /// Prints the failure; exit 1 for a refusal, 69 if there is no answer.
    pub fn print(self) -> ExitCode {
        match self {
            Self::No(text) => {
                eprintln!("{text}");
                ExitCode::from(EXIT_NO)
            }
            Self::Unreachable(text) => {
                eprintln!("error[UNREACHABLE] {text}");
                ExitCode::from(EXIT_UNREACHABLE)
            }
        }
    }

    /// Converts an error of the database to [`Self::Unreachable`].
    pub fn of_store(error: StoreError) -> Self {
        Self::Unreachable(format!("store: {:#}", anyhow::Error::from(error)))
    }
}

/// Returns the requester on the command line, for the audit.
pub fn requested_by(operator: String, reason: String, at: Timestamp) -> RequestedBy {
    let correlation_id = CorrelationId::new(at, SystemIds.random());
    RequestedBy { client_id: ClientId("command-line".to_owned()), operator, reason, correlation_id }
}

/// Opens PostgreSQL, or the existing embedded store in the data directory.
pub async fn open(config: &Config, app_name: &str) -> Result<Store, Failure> {
    let opened = if let Some(url) = &config.database_url {
        let settings = PostgresSettings { app_name: app_name.to_owned(), migrate: false };
        postgres::connect(url.expose_secret(), &settings).await
    } else {
        let path = config.store_file();
        if !path.exists() {
            let text = format!(
                "error[DATA_DIR] data-dir: {} does not exist; set MINISHOP_DATA_DIR to the server's directory",
                path.display()
            );
            return Err(Failure::No(text));
        }
        sqlite::open(&path, Arc::new(SystemClock), false).await
    };
    opened.map_err(|error: OpenError| {
        let unreachable = error.is_retry();
        let text = format!("{:#}", boot::store_refused(error));
        if unreachable { Failure::Unreachable(text) } else { Failure::No(text) }
    })
}
