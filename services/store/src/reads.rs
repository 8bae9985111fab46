//! Plain reads of orders and of what a consumer has settled and parked.

use std::collections::HashMap;
use std::sync::Arc;

use minishop_core::ids::{ClientId, OrderId};
use minishop_core::parking::State;
use minishop_core::position::Position;
use uuid::Uuid;

use super::columns::{self, Columns as _, order_columns};
use super::database::{Arg, Database, Row, Statement};
use super::{ListQuery, OrderRow, Result};

static ORDER: Statement =
    Statement::new(concat!("SELECT ", order_columns!(), " FROM orders o WHERE o.order_id = $1 AND o.client_id = $2"));

macro_rules! list {
    ($and:literal) => {
        Statement::new(concat!(
            "SELECT ",
            order_columns!(),
            " FROM orders o WHERE o.client_id = $1 AND o.order_id < $2 AND o.order_id >= $3 AND ($4 IS NULL OR o.status = $4)",
            $and,
            " ORDER BY o.order_id DESC LIMIT $5"
        ))
    };
}

macro_rules! nth {
    ($and:literal) => {
        Statement::new(concat!(
            "SELECT order_id FROM orders WHERE client_id = $1 AND order_id < $2",
            $and,
            " ORDER BY order_id DESC LIMIT 1 OFFSET $3"
        ))
    };
}

// A plan of its own for each: another index holds the orders of a customer.
static LIST: Statement = list!("");
static LIST_OF_CUSTOMER: Statement = list!(" AND o.customer_id = $6");
static NTH: Statement = nth!("");
static NTH_OF_CUSTOMER: Statement = nth!(" AND customer_id = $4");

static POSITIONS: Statement = Statement::new("SELECT topic, partition, next_offset FROM consumed WHERE consumer = $1");

static PARKED: Statement = Statement::new("SELECT state, count(*) FROM parked GROUP BY state");

/// Reads that see every acknowledged write.
#[derive(Debug, Clone)]
pub struct Reads(pub(super) Arc<dyn Database>);

impl Reads {
    /// Reads one order of a client; another client's is `None`.
    pub async fn order(&self, client: &ClientId, id: OrderId) -> Result<Option<OrderRow>> {
        let args = vec![Arg::Id(Some(id.0)), Arg::text(&client.0)];
        self.0.first("orders.get", &ORDER, args, columns::order_row).await
    }

    /// Reads a page of orders. A status is searched row by row, so bound such a query with [`Reads::nth_order`].
    pub async fn orders(&self, query: &ListQuery) -> Result<Vec<OrderRow>> {
        let args = vec![
            Arg::text(&query.client_id.0),
            before(query),
            Arg::Id(Some(query.down_to.map_or(Uuid::nil(), |id| id.0))),
            Arg::Text(query.status.map(|status| status.as_str().to_owned())),
            Arg::Long(query.limit),
        ];
        let (statement, args) = of_customer(query, &LIST, &LIST_OF_CUSTOMER, args);
        self.0.all("orders.list", statement, args, columns::order_row).await
    }

    /// Finds the `n`th order, from 1, of a list of any status, in an index alone; `None` when there are fewer. Ignores the
    /// query's limit and `down_to`.
    pub async fn nth_order(&self, query: &ListQuery, n: i64) -> Result<Option<OrderId>> {
        let args = vec![Arg::text(&query.client_id.0), before(query), Arg::Long(n.saturating_sub(1))];
        let (statement, args) = of_customer(query, &NTH, &NTH_OF_CUSTOMER, args);
        self.0.first("orders.nth", statement, args, |row| row.id(0).map(OrderId)).await
    }

    /// Reads a consumer's settled positions in all partitions.
    pub async fn positions(&self, consumer: &str) -> Result<Vec<Position>> {
        self.0.all("inbox.positions", &POSITIONS, vec![Arg::text(consumer)], position).await
    }

    /// Counts the parked events by state. A state that this binary does not know is left out.
    pub async fn parked_counts(&self) -> Result<HashMap<State, i64>> {
        Ok(self.0.all("lot.counts", &PARKED, Vec::new(), count).await?.into_iter().flatten().collect())
    }
}

fn before(query: &ListQuery) -> Arg {
    Arg::Id(Some(query.before.map_or(Uuid::max(), |id| id.0)))
}

/// Chooses the statement for a query, and adds the customer as the last argument.
fn of_customer(
    query: &ListQuery,
    of_all: &'static Statement,
    of_one: &'static Statement,
    mut args: Vec<Arg>,
) -> (&'static Statement, Vec<Arg>) {
    let Some(customer) = &query.customer_id else { return (of_all, args) };
    args.push(Arg::text(customer));
    (of_one, args)
}

fn position(row: &Row) -> sqlx::Result<Position> {
    Ok(Position { topic: row.text(0)?.to_owned(), partition: row.int(1)?, next_offset: row.long(2)? })
}

fn count(row: &Row) -> sqlx::Result<Option<(State, i64)>> {
    Ok(State::parse(row.text(0)?).zip(Some(row.long(1)?)))
}
