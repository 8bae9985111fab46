//! How much a server has written ahead, for measurements.

use sqlx::Connection as _;

use super::super::error::OpenError;
use super::connect::Sessions;
use super::error::open_error;

/// Returns how many bytes of write-ahead log the server has written since it was created, for all its databases.
pub async fn wal_bytes(url: &str) -> Result<u64, OpenError> {
    let mut connection = Sessions::new(url, "minishop-bench")?.reads.connect().await?;
    let position = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint";
    let bytes: i64 = sqlx::query_scalar(position).fetch_one(&mut connection).await.map_err(open_error)?;
    connection.close().await.map_err(open_error)?;
    Ok(bytes.unsigned_abs())
}
