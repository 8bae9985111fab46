//! Connection poolers that share a server connection among sessions, as `PgBouncer` does in transaction mode.
//!
//! Behind one, a session's settings apply to a connection that others use next: time limits are lost, and others commit with the
//! settings of this session. This is detected before anything is set.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection as _, PgConnection, Row as _};

use super::super::error::OpenError;
use super::error::open_error;

/// The timeout of the check.
const PATIENCE: Duration = Duration::from_secs(12);
/// The rounds in which the two sessions take turns.
const TURNS: usize = 3;

/// Identifies a server process, also among several servers.
const WHO: &str = "SELECT pid::text || ' ' || backend_start::text FROM pg_stat_get_activity(pg_backend_pid())";
const BEGIN_WHO: &str = "BEGIN; SELECT pid::text || ' ' || backend_start::text FROM pg_stat_get_activity(pg_backend_pid())";

/// Connects twice. Refuses a server if two sessions share a process of it, or if one session gets several.
pub(super) async fn refuse(options: &PgConnectOptions) -> Result<(), OpenError> {
    let silent = |_| OpenError::Retry { source: anyhow::anyhow!("no answer within {PATIENCE:?}") };
    let options = options.clone().disable_statement_logging();
    let look = async {
        let (mut one, mut two) = (options.connect().await.map_err(open_error)?, options.connect().await.map_err(open_error)?);
        if !have_their_own(&mut one, &mut two).await.map_err(open_error)? {
            return Err(shares_sessions());
        }
        one.close().await.map_err(open_error)?;
        two.close().await.map_err(open_error)
    };
    tokio::time::timeout(PATIENCE, look).await.map_err(silent)?
}

/// Returns whether each session keeps its own server process across transactions while the other takes and frees its own.
///
/// A pooler that hands out the process that was freed last gives the second session the first one's in the first round; one that
/// hands out the longest idle, or that is busy with others, gives one of them another process in the next round.
async fn have_their_own(one: &mut PgConnection, two: &mut PgConnection) -> sqlx::Result<bool> {
    let (first, second) = (ask(one, WHO).await?, ask(two, WHO).await?);
    let mut own = first != second;
    for _ in 0..TURNS {
        own = own && ask(one, WHO).await? == first && ask(two, BEGIN_WHO).await? == second;
        own = own && ask(one, BEGIN_WHO).await? == first;
        if !own {
            break;
        }
        sqlx::raw_sql("COMMIT").execute(&mut *two).await?;
        sqlx::raw_sql("COMMIT").execute(&mut *one).await?;
    }
    Ok(own)
}

/// Asks by the simple protocol: prepared statements do not survive on a shared connection.
async fn ask(connection: &mut PgConnection, sql: &'static str) -> sqlx::Result<String> {
    sqlx::raw_sql(sql).fetch_one(connection).await?.try_get(0)
}

/// Makes the error for a pooler that shares server connections among sessions.
pub(super) fn shares_sessions() -> OpenError {
    OpenError::Pooler {
        what: "DATABASE_URL points to a connection pooler that shares server connections among sessions (transaction mode), so \
               timeouts and durability are not guaranteed; set pool_mode = session, or connect to the server directly"
            .to_owned(),
    }
}

/// Makes the error for a pooler that refused the session itself; `None` for any other message.
pub(super) fn said_no(code: &str, message: &str) -> Option<OpenError> {
    // PgBouncer reports nearly everything under one code, and most of it passes.
    let for_good = code == "08P01"
        && ["unsupported startup parameter", "transaction blocks not allowed"].iter().any(|start| message.starts_with(start));
    for_good.then(|| OpenError::Pooler {
        what: format!(
            "DATABASE_URL points to a connection pooler that refuses this session ({message}); set its pool_mode = session and \
             add the parameter to its ignore_startup_parameters, or connect to the server directly"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_pooler_refuses_for_good_is_refused_by_name() {
        for message in ["unsupported startup parameter: options", "transaction blocks not allowed in statement pooling mode"] {
            let error = said_no("08P01", message).expect(message);
            assert_eq!(error.code(), "POOLER_UNSUPPORTED");
            assert!(error.to_string().contains(message) && !error.is_retry());
        }
        assert!(said_no("08P01", "server login failed: the database system is starting up").is_none(), "it passes");
        assert!(said_no("22P02", "unsupported startup parameter: options").is_none(), "the server's own words");
    }
}
