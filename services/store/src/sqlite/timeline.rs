//! The timeline in SQLite.

use async_trait::async_trait;
use minishop_core::ids::{ClientId, OrderId};

use super::super::{Fact, Origin, ParkedState, Result, Timeline, columns};
use super::{Db, failed};

const ORIGIN: &str = "SELECT order_id, client_id, customer_id, status, version, currency, total_minor, items, \
    correlation_id, created_at, idempotency_key, traceparent, created_event_id, settled_event_id, adopted \
    FROM orders WHERE order_id = ?1 AND client_id = ?2";

const FACTS: &str = "SELECT id, version, kind, at, cause, detail FROM timeline WHERE order_id = ?1 AND id > ?2 \
    ORDER BY id LIMIT ?3";

const STANDING: &str = "SELECT event_id, state, attempts, next_attempt_at, parked_at, blocks, error_code, error_message, \
    needs_type FROM parked WHERE order_id = ?1 ORDER BY id LIMIT ?2";

#[async_trait]
impl Timeline for Db {
    async fn origin(&self, client: &ClientId, id: OrderId) -> Result<Option<Origin>> {
        const OPERATION: &str = "timeline.origin";
        let query = sqlx::query(ORIGIN).bind(id.0).bind(&client.0);
        let rows = query.fetch_all(&self.readers).await.map_err(failed(OPERATION))?;
        rows.first().map(|row| columns::one(OPERATION, row, columns::origin)).transpose()
    }

    async fn facts(&self, order: OrderId, after: i64, limit: i64) -> Result<Vec<Fact>> {
        const OPERATION: &str = "timeline.facts";
        let query = sqlx::query(FACTS).bind(order.0).bind(after).bind(limit);
        let rows = query.fetch_all(&self.readers).await.map_err(failed(OPERATION))?;
        columns::all(OPERATION, &rows, columns::fact)
    }

    async fn standing(&self, order: OrderId, limit: i64) -> Result<Vec<ParkedState>> {
        const OPERATION: &str = "timeline.standing";
        let query = sqlx::query(STANDING).bind(order.0).bind(limit);
        let rows = query.fetch_all(&self.readers).await.map_err(failed(OPERATION))?;
        columns::all(OPERATION, &rows, columns::standing)
    }
}
