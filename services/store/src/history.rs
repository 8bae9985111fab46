//! Past orders of all clients, from which a replay makes its events.

use std::sync::Arc;

use minishop_core::clock::Timestamp;
use minishop_core::ids::{EventId, OrderId};

use super::columns::{self, Columns as _, past_order_columns};
use super::database::{Arg, Database, Statement};
use super::{Origin, Result};

/// The last of the next orders above an id, at most so many.
pub(super) static LAST_OF_PAGE: Statement = Statement::new(
    "SELECT p.order_id FROM (SELECT order_id FROM orders WHERE order_id > $1 ORDER BY order_id LIMIT $2) p \
     ORDER BY p.order_id DESC LIMIT 1",
);

static READ: Statement = Statement::new(concat!(
    "SELECT ",
    past_order_columns!(),
    " FROM orders o LEFT JOIN timeline t ON t.order_id = o.order_id AND t.version = o.version AND o.version > 1 \
     WHERE ($1 IS NULL OR o.order_id = $1) AND ($2 IS NULL OR o.customer_id = $2) AND ($3 IS NULL OR o.created_at >= $3) \
     AND ($4 IS NULL OR o.created_at < $4) AND o.order_id > $5 AND o.order_id <= $6 ORDER BY o.order_id"
));

/// The family over one database.
#[derive(Debug, Clone)]
pub struct History(pub(super) Arc<dyn Database>);

/// A filter for orders; `None` matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Past {
    pub order_id: Option<OrderId>,
    pub customer_id: Option<String>,
    /// Orders accepted at or after this time.
    pub from: Option<Timestamp>,
    /// Orders accepted before this time.
    pub until: Option<Timestamp>,
}

/// An order with the data of its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastOrder {
    pub origin: Origin,
    /// How it ended; `None` if it has not, or if its timeline row is gone.
    pub end: Option<End>,
}

/// How an order ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The event that announced the end.
    pub event_id: EventId,
    pub at: Timestamp,
    /// The event that caused it.
    pub cause: EventId,
}

impl History {
    /// Scans at most `most` orders above `after` in id order; returns those that match `past`, and the last id scanned.
    ///
    /// The id is `None` when no order is left. A page bounds the time of each statement: no index serves every filter.
    pub async fn orders(&self, past: &Past, after: Option<OrderId>, most: i64) -> Result<(Vec<PastOrder>, Option<OrderId>)> {
        const OPERATION: &str = "history.orders";
        let (first, after) = (after.is_none(), Arg::Id(Some(after.map_or(uuid::Uuid::nil(), |id| id.0))));
        let last = if let Some(only) = past.order_id {
            Some(only.0).filter(|_| first)
        } else {
            self.0.first(OPERATION, &LAST_OF_PAGE, vec![after.clone(), Arg::Long(most)], |row| row.id(0)).await?
        };
        let Some(last) = last else { return Ok((Vec::new(), None)) };
        let args = vec![
            Arg::Id(past.order_id.map(|id| id.0)),
            Arg::Text(past.customer_id.clone()),
            Arg::Time(past.from),
            Arg::Time(past.until),
            after,
            Arg::Id(Some(last)),
        ];
        let chosen = self.0.all(OPERATION, &READ, args, columns::past_order).await?;
        Ok((chosen, Some(OrderId(last))))
    }
}
