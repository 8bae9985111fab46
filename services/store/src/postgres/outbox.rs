//! The outbox in PostgreSQL. Numbers come from `outbox_last` (migration 7), inside the statements that write events.

use async_trait::async_trait;
use minishop_core::ids::OrderId;
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use super::super::columns::{self, outbox_columns, past_order_columns};
use super::super::{Acknowledged, Leadership, NewEvent, Outbox, OutboxRow, OutboxStats, PastOrder, Renewal, Result, Role, Span};
use super::error::{Lost, failed, has_code};
use super::events::{self, column};
use super::{Db, lease};

const READ: &str = concat!(
    "SELECT o.* FROM UNNEST($1::smallint[], $2::bigint[], $3::bigint[]) s(shard, low, high) CROSS JOIN LATERAL (SELECT ",
    outbox_columns!(),
    " FROM outbox_event e WHERE e.shard = s.shard AND e.number >= s.low AND e.number < s.high \
     ORDER BY e.number LIMIT $4) o ORDER BY o.shard, o.number"
);

// One look-up for each order: no plan can turn a subquery with a limit into a join over all orders.
const PAST_ORDERS: &str = concat!(
    "SELECT ",
    past_order_columns!(),
    " FROM UNNEST($1::uuid[]) k(order_id) \
     CROSS JOIN LATERAL (SELECT * FROM orders f WHERE f.order_id = k.order_id LIMIT 1) o \
     LEFT JOIN LATERAL (SELECT * FROM timeline l WHERE l.order_id = o.order_id AND l.version = o.version LIMIT 1) t ON true"
);

const ACKNOWLEDGE: &str = "SELECT outbox_acknowledge($1, $2, $3, $4, $5, $6)::text";

/// The SQLSTATE of `outbox_acknowledge` if the store is not the one that the leader knows.
const ANOTHER_STORE: &str = "MS001";

// Two index lookups for each shard.
const STATS: &str = "SELECT coalesce(sum(greatest(coalesce(l.number, 0) - s.acknowledged, 0)), 0)::bigint, \
    coalesce((1000 * extract(epoch FROM clock_timestamp() - min(f.created_at)))::bigint, 0) FROM outbox_shard s \
    LEFT JOIN LATERAL (SELECT e.number FROM outbox_event e WHERE e.shard = s.shard ORDER BY e.number DESC LIMIT 1) l ON true \
    LEFT JOIN LATERAL (SELECT e.created_at FROM outbox_event e WHERE e.shard = s.shard AND e.number > s.acknowledged \
    ORDER BY e.number LIMIT 1) f ON true";

const MAY_VACUUM: &str = "SELECT pg_has_role(current_user, relowner, 'USAGE') FROM pg_class WHERE oid = 'outbox_event'::regclass";

// If several leaders run it at once, one is enough: the others skip the locked table.
const VACUUM: &str = "VACUUM (TRUNCATE false, SKIP_LOCKED true) outbox_event";

const APPEND: &str = "WITH input AS (SELECT * FROM UNNEST($1::smallint[], $2::uuid[], $3::text[], $4::bytea[], $5::uuid[], \
    $6::int[], $7::bytea[], $8::bytea[], $9::text[]) WITH ORDINALITY AS t(shard, event_id, topic, record_key, order_id, \
    order_version, payload, headers, trace, n)), \
    given AS MATERIALIZED (SELECT unnest(w.shards) AS shard, unnest(outbox_last(w.shards)) AS last \
    FROM (SELECT array_agg(DISTINCT shard ORDER BY shard) AS shards FROM input) w), \
    queued AS (INSERT INTO outbox_event (shard, number, event_id, topic, record_key, order_id, order_version, payload, headers, \
    trace) SELECT i.shard, g.last + row_number() OVER (PARTITION BY i.shard ORDER BY i.n), i.event_id, i.topic, i.record_key, \
    i.order_id, i.order_version, i.payload, i.headers, i.trace FROM input i JOIN given g USING (shard) RETURNING event_id, number) \
    SELECT coalesce(array_agg(event_id), '{}'), coalesce(array_agg(number), '{}') FROM queued";

/// Appends events in their order and returns their numbers, in the same order. The last step of a transaction: it locks the
/// shards until the commit.
pub(super) async fn append(connection: &mut PgConnection, events: &[&NewEvent]) -> sqlx::Result<Vec<i64>> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let row = events::bind(sqlx::query(APPEND), events).fetch_one(connection).await?;
    let (ids, numbers): (Vec<Uuid>, Vec<i64>) = (row.try_get(0)?, row.try_get(1)?);
    let numbers: std::collections::HashMap<Uuid, i64> = ids.into_iter().zip(numbers).collect();
    let lost = || sqlx::Error::Decode("an event got no number".into());
    events.iter().map(|event| numbers.get(&event.event_id.0).copied().ok_or_else(lost)).collect()
}

#[async_trait]
impl Outbox for Db {
    async fn lead(&self, owner: &str, roles: &[Role], renewal: &Renewal) -> Result<Leadership> {
        lease::lead(&self.relay, owner, roles, renewal).await
    }

    async fn release(&self, owner: &str) -> Result<()> {
        lease::release(&self.relay, owner).await
    }

    async fn read(&self, spans: &[Span], limit: i64) -> Result<Vec<OutboxRow>> {
        const OPERATION: &str = "outbox.read";
        let query = sqlx::query(READ)
            .bind(column(spans, |s| s.shard))
            .bind(column(spans, |s| s.low))
            .bind(column(spans, |s| s.high))
            .bind(limit);
        let rows = self.relay.all(query).await.map_err(failed(OPERATION, Lost::Nothing))?;
        columns::all(OPERATION, &rows, columns::outbox_row)
    }

    async fn past_orders(&self, ids: &[OrderId]) -> Result<Vec<PastOrder>> {
        const OPERATION: &str = "outbox.past_orders";
        let query = sqlx::query(PAST_ORDERS).bind(column(ids, |id| id.0));
        let rows = self.relay.all(query).await.map_err(failed(OPERATION, Lost::Nothing))?;
        columns::all(OPERATION, &rows, columns::past_order)
    }

    async fn acknowledge(&self, owner: &str, published: &[Acknowledged]) -> Result<bool> {
        let query = sqlx::query(ACKNOWLEDGE)
            .bind(owner)
            .bind(column(published, |p| p.shard))
            .bind(column(published, |p| p.epoch))
            .bind(column(published, |p| p.low))
            .bind(column(published, Acknowledged::high))
            .bind(published.iter().flat_map(|p| p.events.iter().map(|id| id.0)).collect::<Vec<_>>());
        match self.relay.execute(query).await {
            Ok(_) => Ok(true),
            Err(error) if has_code(&error, ANOTHER_STORE) => {
                tracing::warn!(error = %error, "the outbox differs from what this process published");
                Ok(false)
            }
            Err(error) => Err(failed("outbox.acknowledge", Lost::Nothing)(error)),
        }
    }

    fn connections(&self) -> u64 {
        self.intake.opened()
    }

    async fn stats(&self) -> Result<OutboxStats> {
        const OPERATION: &str = "outbox.stats";
        let row = self.relay.one(sqlx::query(STATS)).await.map_err(failed(OPERATION, Lost::Nothing))?;
        columns::one(OPERATION, &row, columns::outbox_stats)
    }

    async fn vacuum(&self) -> Result<bool> {
        const OPERATION: &str = "outbox.vacuum";
        let allowed = self.relay.one(sqlx::query(MAY_VACUUM)).await.map_err(failed(OPERATION, Lost::Nothing))?;
        if columns::one(OPERATION, &allowed, |row| row.try_get::<bool, _>(0))? {
            self.relay.execute(sqlx::query(VACUUM)).await.map_err(failed(OPERATION, Lost::Nothing))?;
            return Ok(true);
        }
        Ok(false)
    }
}
