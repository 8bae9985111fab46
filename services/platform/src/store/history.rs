//! The history of orders, whoever's they are: what a replay is made from.

use std::sync::{Arc, LazyLock};

use anyhow::Context as _;
use minishop_core::clock::Timestamp;
use minishop_core::idempotency::IdempotencyKey;
use minishop_core::ids::{ClientId, CorrelationId, EventId, OrderId};
use minishop_core::order::Status;

use super::Result;
use super::columns::{self, Columns};
use super::database::{Arg, Database, Row, Statement};

static READ: LazyLock<Statement> = LazyLock::new(|| {
    Statement::new(
        "SELECT o.order_id, o.client_id, o.idempotency_key, o.customer_id, o.status, o.version, o.currency, o.total_minor, \
         CAST(o.items AS text), o.correlation_id, o.traceparent, o.created_event_id, o.created_at, o.settled_event_id, t.at, \
         t.cause FROM orders o LEFT JOIN timeline t ON t.order_id = o.order_id AND t.version = o.version AND o.version > 1 \
         WHERE ($1 IS NULL OR o.order_id = $1) AND ($2 IS NULL OR o.customer_id = $2) AND ($3 IS NULL OR o.created_at >= $3) \
         AND ($4 IS NULL OR o.created_at < $4) AND o.order_id > $5 ORDER BY o.order_id LIMIT $6",
    )
});

/// The family over one database.
#[derive(Debug, Clone)]
pub struct History(Arc<dyn Database>);

/// Which orders; what is `None` chooses all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Past {
    /// This order.
    pub order_id: Option<OrderId>,
    /// Orders of this customer.
    pub customer_id: Option<String>,
    /// Orders accepted at or after this time.
    pub from: Option<Timestamp>,
    /// Orders accepted before this time.
    pub until: Option<Timestamp>,
}

/// An order with what its events said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastOrder {
    /// The order.
    pub order_id: OrderId,
    /// Whose it is.
    pub client_id: ClientId,
    /// The key of the request that created it.
    pub key: IdempotencyKey,
    /// The customer.
    pub customer_id: String,
    /// Where it stands.
    pub status: Status,
    /// Its version.
    pub version: i32,
    /// The currency's code.
    pub currency: Option<String>,
    /// The total in minor units.
    pub total_minor: i64,
    /// The lines: a JSON array of `core::order::Item`.
    pub items: String,
    /// The correlation id of the request that created it.
    pub correlation_id: CorrelationId,
    /// The trace of that request.
    pub traceparent: Option<String>,
    /// The event that announced it.
    pub created_event_id: EventId,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// How it ended, if it did and its timeline is still kept.
    pub end: Option<End>,
}

/// How an order ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The event that announced it.
    pub event_id: EventId,
    /// When.
    pub at: Timestamp,
    /// The event that caused it.
    pub cause: EventId,
}

impl History {
    pub(super) fn new(database: Arc<dyn Database>) -> Self {
        Self(database)
    }

    /// Reads a page of orders by their ids, with a greater id than `after`.
    pub async fn orders(&self, past: &Past, after: Option<OrderId>, limit: i64) -> Result<Vec<PastOrder>> {
        const OPERATION: &str = "history.orders";
        let args = vec![
            Arg::Id(past.order_id.map(|id| id.0)),
            Arg::Text(past.customer_id.clone()),
            Arg::Time(past.from),
            Arg::Time(past.until),
            Arg::Id(Some(after.map_or(uuid::Uuid::nil(), |id| id.0))),
            Arg::Long(limit),
        ];
        columns::all(OPERATION, &self.0.read(OPERATION, &READ, args).await?, past_order)
    }
}

fn past_order(row: &Row) -> anyhow::Result<PastOrder> {
    let end = match (row.maybe_id(13)?, row.maybe_time(14)?, row.maybe_id(15)?) {
        (Some(event), Some(at), Some(cause)) => Some(End { event_id: EventId(event), at, cause: EventId(cause) }),
        _ => None,
    };
    Ok(PastOrder {
        order_id: OrderId(row.id(0)?),
        client_id: ClientId(row.text(1)?.to_owned()),
        key: IdempotencyKey::of_event(row.text(2)?)?,
        customer_id: row.text(3)?.to_owned(),
        status: Status::parse(row.text(4)?).context("unknown status")?,
        version: row.int(5)?,
        currency: row.maybe_text(6)?.map(str::to_owned),
        total_minor: row.long(7)?,
        items: row.text(8)?.to_owned(),
        correlation_id: CorrelationId::parse(row.text(9)?).context("malformed correlation id")?,
        traceparent: row.maybe_text(10)?.map(str::to_owned),
        created_event_id: EventId(row.id(11)?),
        created_at: row.time(12)?,
        end,
    })
}
