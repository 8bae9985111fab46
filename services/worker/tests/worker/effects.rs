//! What workers wrote.

use std::collections::HashMap;

use minishop_core::ids::OrderId;
use minishop_store::OutboxRow;
use minishop_testkit::rebuilt;
use serde_json::Value;
use sqlx::FromRow;

use crate::shop::Shop;

/// A row of the parking lot.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Parked {
    pub record_key: Vec<u8>,
    pub blocks: bool,
    pub state: String,
    pub r#type: Option<String>,
    pub needs_type: Option<String>,
    pub source_offset: i64,
    pub raw_key: Option<Vec<u8>>,
    pub raw_value: Option<Vec<u8>>,
    pub error_code: Option<String>,
    pub error_message: Option<String>,
    pub attempts: i32,
}

/// The visible state of an order.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Order {
    pub client_id: String,
    pub status: String,
    pub version: i32,
    pub adopted: bool,
    pub total_minor: i64,
    pub correlation_id: String,
}

/// Everything that a record can change.
#[derive(Debug, PartialEq)]
pub struct Snapshot {
    counts: Vec<i64>,
    orders: Vec<Order>,
    parked: Vec<Parked>,
    outbox: Vec<OutboxRow>,
}

impl Shop {
    /// Reads the timeline of an order: kinds and details.
    pub async fn timeline(&self, id: OrderId) -> Vec<(String, Value)> {
        let detail = if self.is_distributed() { "detail::text" } else { "detail" };
        let sql = format!("SELECT kind, {detail} FROM timeline WHERE order_id = {} ORDER BY id", self.id(id));
        let rows: Vec<(String, Option<String>)> = self.rows(&sql).await;
        rows.into_iter().map(|(kind, detail)| (kind, detail.map_or(Value::Null, |d| serde_json::from_str(&d).unwrap()))).collect()
    }

    /// Returns the id of the timeline row that says that an order was processed.
    pub async fn place_in_timeline(&self, id: OrderId) -> i64 {
        let sql = format!("SELECT id FROM timeline WHERE kind = 'processed' AND order_id = {}", self.id(id));
        self.rows::<(i64,)>(&sql).await[0].0
    }

    pub async fn parked(&self) -> Vec<Parked> {
        self.rows("SELECT * FROM parked ORDER BY id").await
    }

    pub async fn order(&self, id: OrderId) -> Option<Order> {
        let id = self.id(id);
        self.rows(&format!("SELECT * FROM orders WHERE order_id = {id}")).await.pop()
    }

    /// Reads a topic's unpublished events, transaction by transaction; those of a key in their order.
    pub async fn published(&self, topic: &str) -> Vec<OutboxRow> {
        let written = if self.is_distributed() { "created_at" } else { "rowid" };
        let places: Vec<(i16, i64)> = self
            .rows(&format!(
                "SELECT e.shard, e.number FROM outbox_event e JOIN outbox_shard s USING (shard) WHERE e.number > s.acknowledged \
             ORDER BY e.{written}, e.shard, e.number"
            ))
            .await;
        let places: HashMap<_, _> = places.into_iter().zip(0..).collect();
        let mut latest: HashMap<i16, i32> = HashMap::new();
        let mut rows = Vec::new();
        for row in rebuilt::outbox(&self.store).await {
            // A shard keeps its last row after it is published.
            let Some(place) = places.get(&(row.event.shard, row.number)) else { continue };
            let place = *latest.entry(row.event.shard).and_modify(|last| *last = *place.max(last)).or_insert(*place);
            rows.push((place, row));
        }
        rows.retain(|(_, row)| row.event.topic == topic);
        rows.sort_by_key(|(place, _)| *place);
        rows.into_iter().map(|(_, row)| row).collect()
    }

    pub async fn snapshot(&self) -> Snapshot {
        let mut counts = Vec::new();
        for table in ["orders", "outbox_event", "inbox", "inbox WHERE order_id IS NOT NULL", "parked", "timeline"] {
            counts.push(self.count(table).await);
        }
        let outbox = rebuilt::outbox(&self.store).await;
        Snapshot {
            counts,
            orders: self.rows("SELECT * FROM orders ORDER BY order_id").await,
            parked: self.parked().await,
            outbox,
        }
    }
}
