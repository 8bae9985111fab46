//! One kind of connection: its settings, and the checks that each new connection must pass, at start and after a fail-over.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection};

use super::super::StoreError;
use super::super::error::OpenError;
use super::error::open_error;

/// No answer for so long is a lost connection: above every limit that the server itself keeps.
pub(super) const SILENCE: Duration = Duration::from_secs(12);

/// How a kind of connection is made.
#[derive(Debug, Clone)]
pub(super) struct Session {
    options: PgConnectOptions,
    /// A delete of the relay need not wait for the disk: losing it only causes a copy.
    lazy_commit: bool,
}

const CHECK: &str = "SELECT current_setting('server_version_num')::int, current_setting('fsync'), \
    current_setting('full_page_writes'), current_setting('synchronous_commit'), pg_is_in_recovery(), \
    current_setting('default_transaction_isolation'), \
    CASE WHEN current_setting('server_version_num')::int >= 170000 THEN set_config('transaction_timeout', $1, false) END";

const SET_COMMIT: &str = "SELECT set_config('synchronous_commit', $1, false)";

impl Session {
    pub(super) fn new(base: &PgConnectOptions, settings: &[(&str, &str)]) -> Self {
        let common = [
            ("idle_in_transaction_session_timeout", "10s"),
            ("default_transaction_isolation", "read committed"),
            ("TimeZone", "UTC"),
            ("jit", "off"),
            ("client_connection_check_interval", "1s"),
        ];
        let all = common.iter().chain(settings).copied();
        Self { options: base.clone().options(all).disable_statement_logging(), lazy_commit: false }
    }

    pub(super) fn lazy_commit(mut self) -> Self {
        self.lazy_commit = true;
        self
    }

    /// For statements that only follow indexes. The planner knows a queue as it was when it was empty, and sorting or collecting
    /// what little it believes to be there costs the same to it as one look at the right index: neither may be chosen.
    pub(super) fn lookups(mut self) -> Self {
        self.options = self.options.options([("enable_sort", "off"), ("enable_bitmapscan", "off")]);
        self
    }

    pub(super) fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// Connects and checks.
    pub(super) async fn connect(&self) -> Result<PgConnection, OpenError> {
        let silent = |_| OpenError::Retry { source: anyhow::anyhow!("no answer within {SILENCE:?}") };
        let connect = async {
            let mut connection = self.options.connect().await.map_err(open_error)?;
            self.check(&mut connection).await?;
            Ok(connection)
        };
        tokio::time::timeout(SILENCE, connect).await.map_err(silent)?
    }

    /// Connects on behalf of an operation. A server that no longer fits, such as a replica after a fail-over, may be replaced.
    pub(super) async fn connect_for(&self, operation: &'static str) -> Result<PgConnection, StoreError> {
        self.connect().await.map_err(|error| StoreError::Retry { operation, source: error.into() })
    }

    /// Refuses a server that would lose what it acknowledges; sets what start-up options must not set before they are read.
    pub(super) async fn check(&self, connection: &mut PgConnection) -> Result<(), OpenError> {
        type Row = (i32, String, String, String, bool, String, Option<String>);
        let (version, fsync, pages, commit, standby, isolation, _): Row =
            sqlx::query_as(CHECK).bind("30s").fetch_one(&mut *connection).await.map_err(open_error)?;
        let refuse = |setting, found, needed| Err(OpenError::Unsafe { setting, found, needed });
        if version < 140_000 {
            return refuse("server_version_num", version.to_string(), "140000 or more");
        }
        if fsync != "on" {
            return refuse("fsync", fsync, "on");
        }
        if pages != "on" {
            return refuse("full_page_writes", pages, "on");
        }
        if commit == "off" {
            return refuse("synchronous_commit", commit, "on");
        }
        if standby {
            return refuse("pg_is_in_recovery", "true".into(), "false: connect to the primary");
        }
        if isolation != "read committed" {
            return refuse("default_transaction_isolation", isolation, "read committed");
        }
        // remote_apply promises more than on.
        let commit = if self.lazy_commit { "off" } else { Some(&*commit).filter(|c| *c == "remote_apply").unwrap_or("on") };
        sqlx::query(SET_COMMIT).bind(commit).execute(connection).await.map_err(open_error)?;
        Ok(())
    }
}
