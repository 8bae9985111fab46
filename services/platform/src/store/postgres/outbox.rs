//! The outbox in PostgreSQL: a pending set read in the order of ids, without a cursor.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::types::PgInterval;

use super::super::{Leadership, Outbox, OutboxRow, OutboxStats, Result, Role, columns};
use super::error::{Lost, failed};
use super::events::column;
use super::{Db, lease};

const PENDING: &str = "SELECT o.shard, o.id, o.event_id, o.topic, o.record_key, o.order_id, o.order_version, o.payload, o.headers \
    FROM UNNEST($1::smallint[]) s(shard) \
    CROSS JOIN LATERAL (SELECT * FROM outbox p WHERE p.shard = s.shard AND p.id <> ALL($3::bigint[]) ORDER BY p.id LIMIT $2) o ORDER BY o.shard, o.id";

const AGED: &str = "SELECT shard, id, event_id, topic, record_key, order_id, order_version, payload, headers FROM outbox \
    WHERE shard = ANY($1) AND created_at <= clock_timestamp() - $2::interval ORDER BY shard, id LIMIT $3";

const DELETE: &str = "DELETE FROM outbox o USING UNNEST($1::smallint[], $2::bigint[]) d(shard, id) \
    WHERE o.shard = d.shard AND o.id = d.id";

const STATS: &str = "SELECT count(*), coalesce((1000 * extract(epoch FROM clock_timestamp() - min(created_at)))::bigint, 0) \
    FROM outbox";

#[async_trait]
impl Outbox for Db {
    async fn lead(&self, owner: &str, roles: &[Role]) -> Result<Leadership> {
        lease::lead(&self.relay, owner, roles).await
    }

    async fn release(&self, owner: &str) -> Result<()> {
        lease::release(&self.relay, owner).await
    }

    async fn pending(&self, shards: &[i16], held: &[i64], limit: i64) -> Result<Vec<OutboxRow>> {
        const OPERATION: &str = "outbox.pending";
        let query = sqlx::query(PENDING).bind(shards).bind(limit).bind(held);
        let rows = self.relay.all(query).await.map_err(failed(OPERATION, Lost::Nothing))?;
        columns::all(OPERATION, &rows, columns::outbox_row)
    }

    async fn aged(&self, shards: &[i16], age: Duration, limit: i64) -> Result<Vec<OutboxRow>> {
        const OPERATION: &str = "outbox.aged";
        let microseconds = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
        let query = sqlx::query(AGED).bind(shards).bind(PgInterval { months: 0, days: 0, microseconds }).bind(limit);
        let rows = self.relay.all(query).await.map_err(failed(OPERATION, Lost::Nothing))?;
        columns::all(OPERATION, &rows, columns::outbox_row)
    }

    async fn delete(&self, rows: &[(i16, i64)]) -> Result<()> {
        let query = sqlx::query(DELETE).bind(column(rows, |(shard, _)| *shard)).bind(column(rows, |(_, id)| *id));
        let lazily = self.relay.lazily(async |connection| query.execute(connection).await.map(drop));
        lazily.await.map_err(failed("outbox.delete", Lost::Commit))
    }

    async fn stats(&self) -> Result<OutboxStats> {
        // On a connection that may scan the table: a count by index takes three times as long.
        const OPERATION: &str = "outbox.stats";
        let row = self.reads.one(sqlx::query(STATS)).await.map_err(failed(OPERATION, Lost::Nothing))?;
        columns::one(OPERATION, &row, columns::outbox_stats)
    }
}
