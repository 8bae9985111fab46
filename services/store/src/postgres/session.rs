//! One kind of connection: its settings, and the checks that each new connection must pass, at start and after a fail-over.
//!
//! Settings are applied to the connection and read back in a later transaction, which detects a pooler that drops them or gives
//! them to others. No session lowers durability; a transaction that need not wait for the disk sets that for itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection as _, PgConnection};

use super::super::StoreError;
use super::super::error::OpenError;
use super::error::open_error;
use super::pooler;

/// Silence after which a connection counts as lost: longer than any `statement_timeout` but that of migrations.
pub(super) const SILENCE: Duration = Duration::from_secs(12);
/// A connection that was used this recently counts as alive.
const FRESH: Duration = Duration::from_millis(10);
/// The timeout of the ping of an idle connection.
const ALIVE_WITHIN: Duration = Duration::from_secs(2);

/// A setting of the session, and its value as the server shows it.
pub(super) type Setting = (&'static str, &'static str);

/// The settings of every kind of connection, unless the kind has its own. A transaction that stalls between statements holds its
/// locks for as long as the server lets it be idle.
const COMMON: [Setting; 6] = [
    ("idle_in_transaction_session_timeout", "2s"),
    ("default_transaction_isolation", "read committed"),
    ("TimeZone", "UTC"),
    ("jit", "off"),
    ("client_connection_check_interval", "1s"),
    ("transaction_timeout", "30s"),
];
/// Exists since PostgreSQL 17.
const SINCE_17: &str = "transaction_timeout";

/// How a kind of connection is made.
#[derive(Debug, Clone)]
pub(super) struct Session {
    options: PgConnectOptions,
    settings: Arc<[Setting]>,
    /// How many connections of all kinds have been opened.
    opened: Arc<AtomicU64>,
}

const CHECK: &str = "SELECT current_setting('server_version_num')::int, current_setting('fsync'), \
    current_setting('full_page_writes'), current_setting('synchronous_commit'), pg_is_in_recovery(), \
    coalesce(current_setting('minishop.session', true), '')";

const APPLY: &str = "SELECT set_config(name, value, false) FROM UNNEST($1::text[], $2::text[]) s(name, value)";

const EFFECTIVE: &str = "SELECT current_setting(name, true) FROM UNNEST($1::text[]) WITH ORDINALITY s(name, n) ORDER BY n";

/// The setting by which a connection recognizes its own server connection.
const MARK: &str = "minishop.session";

impl Session {
    /// Makes a kind of connection. Its settings are not start-up options: poolers drop or refuse those.
    pub(super) fn new(base: &PgConnectOptions, own: &[Setting], opened: &Arc<AtomicU64>) -> Self {
        let common = COMMON.iter().filter(|(name, _)| own.iter().all(|(other, _)| other != name));
        let settings = common.chain(own).copied().collect();
        Self { options: base.clone().disable_statement_logging(), settings, opened: opened.clone() }
    }

    /// For statements that only use index lookups. With statistics of an empty table, the planner
    /// costs a sort or a bitmap scan like one index lookup, so both are disabled.
    pub(super) fn lookups(mut self) -> Self {
        self.settings = self.settings.iter().copied().chain([("enable_sort", "off"), ("enable_bitmapscan", "off")]).collect();
        self
    }

    /// Returns how many connections of all kinds have been opened.
    pub(super) fn opened(&self) -> u64 {
        self.opened.load(Ordering::SeqCst)
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

    /// Connects for an operation. Any error is a retry: a misfit server, such as a replica after a fail-over, may be replaced.
    pub(super) async fn connect_for(&self, operation: &'static str) -> Result<PgConnection, StoreError> {
        self.connect().await.map_err(|error| StoreError::retry(operation, error))
    }

    /// Refuses a server that would lose what it acknowledges, then applies the settings, and refuses a server that drops them.
    pub(super) async fn check(&self, connection: &mut PgConnection) -> Result<(), OpenError> {
        type Row = (i32, String, String, String, bool, String);
        let (version, fsync, pages, commit, standby, mark): Row =
            sqlx::query_as(CHECK).persistent(false).fetch_one(&mut *connection).await.map_err(open_error)?;
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
        if !mark.is_empty() {
            return Err(pooler::shares_sessions());
        }
        // remote_apply promises more than on.
        let commit = if commit == "remote_apply" { "remote_apply" } else { "on" };
        let known = |(name, _): &&Setting| version >= 170_000 || *name != SINCE_17;
        // Counted before anything is written over this connection.
        self.opened.fetch_add(1, Ordering::SeqCst);
        let mut wanted: Vec<Setting> = self.settings.iter().filter(known).copied().collect();
        wanted.push(("synchronous_commit", commit));
        apply(connection, &wanted).await
    }
}

/// Applies settings, and checks in a later transaction that they are in effect.
async fn apply(connection: &mut PgConnection, wanted: &[Setting]) -> Result<(), OpenError> {
    let mark = format!("{:016x}", rand::random::<u64>());
    let mut names: Vec<&str> = wanted.iter().map(|(name, _)| *name).collect();
    let mut values: Vec<&str> = wanted.iter().map(|(_, value)| *value).collect();
    names.push(MARK);
    values.push(&mark);
    let made = sqlx::query(APPLY).persistent(false).bind(&names).bind(&values).execute(&mut *connection);
    made.await.map_err(open_error)?;
    let read = sqlx::query_scalar(EFFECTIVE).persistent(false).bind(&names).fetch_all(connection);
    let mut effective: Vec<Option<String>> = read.await.map_err(open_error)?;
    if effective.pop().flatten().as_deref() != Some(&mark) {
        return Err(pooler::shares_sessions());
    }
    match differing(wanted, effective) {
        Some((setting, found, needed)) => Err(OpenError::Unsafe { setting, found, needed }),
        None => Ok(()),
    }
}

/// Finds the first setting that differs: its name, its value, and the value that it must have.
fn differing(wanted: &[Setting], effective: Vec<Option<String>>) -> Option<(&'static str, String, &'static str)> {
    let found = wanted.iter().zip(effective).find(|((_, needed), is)| is.as_deref() != Some(*needed));
    found.map(|((name, needed), is)| (*name, is.unwrap_or_default(), *needed))
}

/// A connection that its owner keeps between calls, replaced after it is lost.
#[derive(Debug)]
pub(super) struct Kept {
    session: Session,
    idle: Option<(PgConnection, Instant)>,
}

impl Kept {
    /// Connects at the first use.
    pub(super) const fn new(session: Session) -> Self {
        Self { session, idle: None }
    }

    /// Connects for an operation.
    pub(super) async fn connect(session: Session, operation: &'static str) -> Result<Self, StoreError> {
        let connection = session.connect_for(operation).await?;
        Ok(Self { session, idle: Some((connection, Instant::now())) })
    }

    /// Takes the connection out, so that a call that fails or is cancelled leaves none behind in the middle of a statement.
    ///
    /// An idle one is pinged first: had it been lost meanwhile, the statement's outcome would be in doubt for nothing.
    pub(super) async fn take(&mut self, operation: &'static str) -> Result<PgConnection, StoreError> {
        if let Some((mut connection, since)) = self.idle.take()
            && (since.elapsed() < FRESH || is_alive(&mut connection).await)
        {
            return Ok(connection);
        }
        self.reconnect(operation).await
    }

    /// Takes the connection out, for a call that does no harm if it fails because the connection was lost meanwhile.
    pub(super) fn take_unchecked(&mut self) -> Option<PgConnection> {
        self.idle.take().map(|(connection, _)| connection)
    }

    /// Makes another connection.
    pub(super) async fn reconnect(&self, operation: &'static str) -> Result<PgConnection, StoreError> {
        self.session.connect_for(operation).await
    }

    /// Puts back a connection that is fit for the next call.
    pub(super) fn keep(&mut self, connection: PgConnection) {
        self.idle = Some((connection, Instant::now()));
    }
}

async fn is_alive(connection: &mut PgConnection) -> bool {
    tokio::time::timeout(ALIVE_WITHIN, connection.ping()).await.is_ok_and(|pong| pong.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_did_not_last_is_named() {
        let wanted = [("statement_timeout", "5s"), ("synchronous_commit", "on")];
        let shown = |texts: [Option<&str>; 2]| texts.map(|text| text.map(str::to_owned)).to_vec();
        assert_eq!(differing(&wanted, shown([Some("5s"), Some("on")])), None);
        assert_eq!(differing(&wanted, shown([Some("0"), Some("on")])), Some(("statement_timeout", "0".to_owned(), "5s")));
        assert_eq!(differing(&wanted, shown([Some("5s"), Some("off")])), Some(("synchronous_commit", "off".to_owned(), "on")));
        assert_eq!(differing(&wanted, shown([None, Some("on")])), Some(("statement_timeout", String::new(), "5s")));
    }

    #[test]
    fn what_a_kind_asks_for_itself_goes_before_what_all_ask_for() {
        let session = Session::new(
            &PgConnectOptions::new_without_pgpass(),
            &[("idle_in_transaction_session_timeout", "10s")],
            &Arc::default(),
        );
        let idle: Vec<_> = session.settings.iter().filter(|(name, _)| *name == "idle_in_transaction_session_timeout").collect();
        assert_eq!(idle, [&("idle_in_transaction_session_timeout", "10s")]);
    }
}
