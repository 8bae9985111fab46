//! Orders whose announcement was lost are announced again.
//!
//! An order that is `created`, whose event waits neither in the outbox nor in the parking lot, moves only when its event comes once
//! more: the log has lost it, retention dropped it unread, or a store came back from a backup. The event is made anew with the same id
//! and bytes, so a copy that is on its way after all has no effect.

use std::collections::HashSet;
use std::sync::LazyLock;

use minishop_core::clock::Timestamp;
use minishop_core::ids::{EventId, OrderId};
use minishop_core::order::Status;
use serde_json::json;
use uuid::Uuid;

use super::super::columns::{self, Columns as _};
use super::super::database::{Arg, Row, Statement, Work};
use super::super::{NewEvent, Origin, OutboxRow, Result, StoreError};
use super::{AuditRow, Operations, RequestedBy, audit};

/// How many orders one statement looks at.
const PAGE: i64 = 2_000;
/// How many orders one call looks at, at most.
const LOOKED_AT: i64 = 20_000;
/// How many orders one call announces, at most, but for the rest of its last page.
const MOST: usize = 500;

/// The columns that `columns::origin` reads, in its order.
macro_rules! origins {
    ($where:literal) => {
        concat!(
            "SELECT order_id, client_id, customer_id, status, version, currency, total_minor, CAST(items AS text), \
             correlation_id, created_at, idempotency_key, traceparent, created_event_id, settled_event_id, adopted \
             FROM orders WHERE ",
            $where,
            " ORDER BY order_id"
        )
    };
}

static BY_ID: LazyLock<Statement> = LazyLock::new(|| Statement::new(origins!("order_id @ids1")));

/// The last of a page of ids.
static LAST: LazyLock<Statement> = LazyLock::new(|| {
    Statement::new(
        "SELECT p.order_id FROM (SELECT order_id FROM orders WHERE order_id > $1 ORDER BY order_id LIMIT $2) p \
         ORDER BY p.order_id DESC LIMIT 1",
    )
});

static OPEN: LazyLock<Statement> =
    LazyLock::new(|| Statement::new(origins!("order_id > $1 AND order_id <= $2 AND status = 'created' AND created_at < $3")));

// All take their locks in one order: the gate's rows by event, then orders. What the lot holds is read after that.
static AT_THE_GATE: LazyLock<Statement> =
    LazyLock::new(|| Statement::new("SELECT event_id FROM inbox WHERE consumer = $1 AND event_id @ids2 ORDER BY event_id @lock"));

static STILL_OPEN: LazyLock<Statement> = LazyLock::new(|| {
    Statement::new("SELECT order_id FROM orders WHERE order_id @ids1 AND status = 'created' ORDER BY order_id @lock")
});

static IN_THE_LOT: LazyLock<Statement> = LazyLock::new(|| Statement::new("SELECT order_id FROM parked WHERE order_id @ids1"));

static PARKED: LazyLock<Statement> =
    LazyLock::new(|| Statement::new("SELECT event_id FROM parked WHERE consumer = $1 AND event_id @ids2"));

static IN_THE_OUTBOX: LazyLock<Statement> =
    LazyLock::new(|| Statement::new("SELECT event_id FROM outbox_waiting WHERE event_id @ids1"));

static OPEN_THE_GATE: LazyLock<Statement> =
    LazyLock::new(|| Statement::new("DELETE FROM inbox WHERE consumer = $1 AND event_id @ids2"));

/// Which orders are to be announced again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unannounced {
    /// These, should their announcement be lost.
    Ids(Vec<OrderId>),
    /// All whose announcement is lost, in the order of their ids.
    Before {
        /// Only orders that were accepted before this time.
        time: Timestamp,
        /// Only orders behind this one.
        after: Option<OrderId>,
    },
}

/// Who asks for which orders to be announced again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announce {
    /// Which orders.
    pub which: Unannounced,
    /// The consumer that changes them.
    pub consumer: String,
    /// Whether to tell what would happen and write nothing.
    pub dry_run: bool,
    /// Who asks.
    pub requested_by: RequestedBy,
    /// When.
    pub at: Timestamp,
}

/// Why an order is not announced again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// There is no such order.
    NotFound,
    /// It has gone on from `created`.
    NotCreated,
    /// Its event waits to be published.
    InOutbox,
    /// Its event stands in the parking lot.
    InLot,
}

impl Left {
    /// Names the reason as answers do.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "NOT_FOUND",
            Self::NotCreated => "NOT_CREATED",
            Self::InOutbox => "IN_OUTBOX",
            Self::InLot => "IN_LOT",
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnnouncedAgain {
    /// The orders that are announced again, or would be.
    pub orders: Vec<OrderId>,
    /// Their events in the outbox. Empty after a dry run.
    pub rows: Vec<OutboxRow>,
    /// Orders that were asked for by id and are left alone.
    pub left: Vec<(OrderId, Left)>,
    /// The order behind which to go on; `None` when nothing is left to look at.
    pub next: Option<OrderId>,
}

impl Operations {
    /// Writes the events of orders whose announcement is lost into the outbox again, made by `made` of what the store knows.
    pub async fn announce(
        &self,
        ask: &Announce,
        made: impl Fn(&Origin) -> anyhow::Result<NewEvent> + Send + Sync,
    ) -> Result<AnnouncedAgain> {
        const OPERATION: &str = "operations.announce";
        let (found, next) = self.candidates(&ask.which).await?;
        let mut work = self.0.begin(OPERATION).await?;
        let mut again = AnnouncedAgain { next, ..AnnouncedAgain::default() };
        let (lost, settled) = lost(work.as_mut(), ask, &found, &mut again.left).await?;
        again.orders = lost.iter().map(|origin| origin.order.order_id).collect();
        if let Unannounced::Ids(ids) = &ask.which {
            let known: HashSet<OrderId> = found.iter().map(|origin| origin.order.order_id).collect();
            again.left.extend(ids.iter().filter(|id| !known.contains(id)).map(|id| (*id, Left::NotFound)));
        } else {
            again.left.clear();
        }
        if ask.dry_run || lost.is_empty() {
            work.rollback().await?;
            return Ok(again);
        }
        if !settled.is_empty() {
            // The event was settled and its order does not tell of it: it must pass the gate once more. What it does, it does once,
            // since it changes an order that is `created`.
            work.run(&OPEN_THE_GATE, vec![Arg::text(&ask.consumer), Arg::Ids(settled)]).await?;
        }
        audit::write(work.as_mut(), &entry(ask, &again.orders)).await?;
        let events: Vec<NewEvent> = lost
            .iter()
            .map(|origin| made(origin).map_err(|error| StoreError::unreadable(OPERATION, error)))
            .collect::<Result<_>>()?;
        // Last: it takes the places in the outbox.
        let places = work.announce(&events.iter().collect::<Vec<_>>()).await?;
        work.commit().await?;
        again.rows = places.into_iter().zip(events).map(|(number, event)| OutboxRow::new(number, event)).collect();
        Ok(again)
    }

    /// Reads orders that may have lost their announcement, without a lock, and behind which order to go on.
    async fn candidates(&self, which: &Unannounced) -> Result<(Vec<Origin>, Option<OrderId>)> {
        const OPERATION: &str = "operations.candidates";
        let (time, after) = match which {
            Unannounced::Ids(ids) => {
                let rows = self.0.read(OPERATION, &BY_ID, vec![orders(ids.iter().copied())]).await?;
                return Ok((columns::all(OPERATION, &rows, columns::origin)?, None));
            }
            Unannounced::Before { time, after } => (*time, *after),
        };
        let (mut found, mut looked_at) = (Vec::new(), 0);
        let mut after = after.map_or(Uuid::nil(), |id| id.0);
        while looked_at < LOOKED_AT && found.len() < MOST {
            let last = self.0.read(OPERATION, &LAST, vec![Arg::Id(Some(after)), Arg::Long(PAGE)]).await?;
            let Some(last) = last.first() else { return Ok((found, None)) };
            let last = columns::one(OPERATION, last, |row| row.id(0))?;
            let args = vec![Arg::Id(Some(after)), Arg::Id(Some(last)), Arg::Time(Some(time))];
            let open = columns::all(OPERATION, &self.0.read(OPERATION, &OPEN, args).await?, columns::origin)?;
            found.extend(self.without_waiting(open).await?);
            (after, looked_at) = (last, looked_at + PAGE);
        }
        Ok((found, Some(OrderId(after))))
    }

    /// Leaves out what waits anyway, so that a call finds something to do behind a long backlog.
    async fn without_waiting(&self, open: Vec<Origin>) -> Result<Vec<Origin>> {
        const OPERATION: &str = "operations.waiting";
        if open.is_empty() {
            return Ok(open);
        }
        let waiting = self.0.read(OPERATION, &IN_THE_OUTBOX, vec![events(&open)]).await?;
        let waiting = ids(OPERATION, &waiting)?;
        Ok(open.into_iter().filter(|origin| !waiting.contains(&origin.created_event_id.0)).collect())
    }
}

/// Locks what may have lost its announcement, and tells what has, with the events of it that were settled; notes the rest in `left`.
async fn lost<'f>(
    work: &mut dyn Work,
    ask: &Announce,
    found: &'f [Origin],
    left: &mut Vec<(OrderId, Left)>,
) -> Result<(Vec<&'f Origin>, Vec<Uuid>)> {
    const OPERATION: &str = "operations.announce";
    let by_event = || vec![Arg::text(&ask.consumer), events(found)];
    let by_order = || vec![orders(found.iter().map(|origin| origin.order.order_id))];
    let mut settled = ids(OPERATION, &work.run(&AT_THE_GATE, by_event()).await?)?;
    let open = ids(OPERATION, &work.run(&STILL_OPEN, by_order()).await?)?;
    let mut parked = ids(OPERATION, &work.run(&IN_THE_LOT, by_order()).await?)?;
    parked.extend(ids(OPERATION, &work.run(&PARKED, by_event()).await?)?);
    let waiting = ids(OPERATION, &work.run(&IN_THE_OUTBOX, vec![events(found)]).await?)?;
    let mut lost = Vec::new();
    for origin in found {
        let (order, event) = (origin.order.order_id, origin.created_event_id);
        let why = if origin.order.status != Status::Created || !open.contains(&order.0) {
            Left::NotCreated
        } else if waiting.contains(&event.0) {
            Left::InOutbox
        } else if parked.contains(&order.0) || parked.contains(&event.0) {
            Left::InLot
        } else {
            lost.push(origin);
            continue;
        };
        left.push((order, why));
    }
    settled.retain(|event| lost.iter().any(|origin| origin.created_event_id == EventId(*event)));
    Ok((lost, settled.into_iter().collect()))
}

fn events(found: &[Origin]) -> Arg {
    Arg::Ids(found.iter().map(|origin| origin.created_event_id.0).collect())
}

fn orders(ids: impl Iterator<Item = OrderId>) -> Arg {
    Arg::Ids(ids.map(|id| id.0).collect())
}

fn ids(operation: &'static str, rows: &[Row]) -> Result<HashSet<Uuid>> {
    Ok(columns::all(operation, rows, |row| row.id(0))?.into_iter().collect())
}

fn entry(ask: &Announce, orders: &[OrderId]) -> AuditRow {
    let orders: Vec<String> = orders.iter().map(ToString::to_string).collect();
    AuditRow {
        id: 0,
        at: ask.at,
        action: "announce".to_owned(),
        requested_by: ask.requested_by.clone(),
        outcome: "done".to_owned(),
        operation_id: None,
        detail: Some(json!({ "orders": orders }).to_string()),
    }
}
