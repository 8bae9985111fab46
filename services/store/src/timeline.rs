//! The timeline of one order.

use std::sync::Arc;

use anyhow::Context as _;
use minishop_core::clock::Timestamp;
use minishop_core::ids::{ClientId, EventId, OrderId};
use minishop_core::parking::State;

use super::columns::{self, Columns as _, origin_columns};
use super::database::{Arg, Database, Row, Statement};
use super::{OrderRow, Result};

/// An order with its trace and the events that announced it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub order: OrderRow,
    /// The W3C trace context of the request that created it.
    pub traceparent: Option<String>,
    /// The event that announced it.
    pub created_event_id: EventId,
    /// The event that announced its final status.
    pub settled_event_id: Option<EventId>,
    /// Whether it came by an event and not by our own API.
    pub adopted: bool,
}

/// A row of the timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// Rows are written in the order of their ids.
    pub id: i64,
    /// The order's version after it, for a change of status.
    pub version: Option<i32>,
    /// The status, or the kind of a note.
    pub kind: String,
    pub at: Timestamp,
    pub cause: EventId,
    /// Details as a JSON object.
    pub detail: Option<String>,
}

/// A parked event of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedState {
    pub event_id: EventId,
    pub state: State,
    /// Attempts since it was parked or redriven.
    pub attempts: i32,
    pub next_attempt_at: Option<Timestamp>,
    pub parked_at: Timestamp,
    /// Whether later events of its key wait for it.
    pub blocks: bool,
    pub error_code: Option<String>,
    pub error_message: Option<String>,
    /// The type that a worker must know to handle it.
    pub needs_type: Option<String>,
}

static ORIGIN: Statement =
    Statement::new(concat!("SELECT ", origin_columns!(), " FROM orders o WHERE o.order_id = $1 AND o.client_id = $2"));

static FACTS: Statement = Statement::new(
    "SELECT id, version, kind, at, cause, CAST(detail AS text) FROM timeline WHERE order_id = $1 AND id > $2 \
     ORDER BY id LIMIT $3",
);

static STANDING: Statement = Statement::new(
    "SELECT event_id, state, attempts, next_attempt_at, parked_at, blocks, error_code, error_message, needs_type \
     FROM parked WHERE order_id = $1 ORDER BY id LIMIT $2",
);

/// The timeline, as an order's owner reads it.
#[derive(Debug, Clone)]
pub struct Timeline(pub(super) Arc<dyn Database>);

impl Timeline {
    /// Reads one order of a client; another client's is `None`.
    pub async fn origin(&self, client: &ClientId, id: OrderId) -> Result<Option<Origin>> {
        let args = vec![Arg::Id(Some(id.0)), Arg::text(&client.0)];
        self.0.first("timeline.origin", &ORIGIN, args, columns::origin).await
    }

    /// Reads rows of an order's timeline with an id above `after`, in id order; ids are above 0.
    pub async fn facts(&self, order: OrderId, after: i64, limit: i64) -> Result<Vec<Fact>> {
        let args = vec![Arg::Id(Some(order.0)), Arg::Long(after), Arg::Long(limit)];
        self.0.all("timeline.facts", &FACTS, args, fact).await
    }

    /// Reads the parked events of an order, oldest first.
    pub async fn standing(&self, order: OrderId, limit: i64) -> Result<Vec<ParkedState>> {
        let args = vec![Arg::Id(Some(order.0)), Arg::Long(limit)];
        self.0.all("timeline.standing", &STANDING, args, standing).await
    }
}

fn fact(row: &Row) -> sqlx::Result<Fact> {
    Ok(Fact {
        id: row.long(0)?,
        version: row.maybe_int(1)?,
        kind: row.text(2)?.to_owned(),
        at: row.time(3)?,
        cause: EventId(row.id(4)?),
        detail: row.maybe_text(5)?.map(str::to_owned),
    })
}

fn standing(row: &Row) -> anyhow::Result<ParkedState> {
    Ok(ParkedState {
        event_id: EventId(row.id(0)?),
        state: State::parse(row.text(1)?).context("unknown state")?,
        attempts: row.int(2)?,
        next_attempt_at: row.maybe_time(3)?,
        parked_at: row.time(4)?,
        blocks: row.flag(5)?,
        error_code: row.maybe_text(6)?.map(str::to_owned),
        error_message: row.maybe_text(7)?.map(str::to_owned),
        needs_type: row.maybe_text(8)?.map(str::to_owned),
    })
}
