//! Publishes again the `orders.created` event of orders that have lost it.
//!
//! An event is lost if its order is still `created`, but the event waits neither in the outbox nor in the lot: the log lost it,
//! retention dropped it unread, or the store was restored from a backup. No worker will process the order unless the event is
//! published again. It is rebuilt with the same id and bytes, so the lost event has no further effect if it arrives after all.

use std::collections::HashSet;

use minishop_core::clock::Timestamp;
use minishop_core::ids::{EventId, OrderId};
use minishop_core::order::Status;
use uuid::Uuid;

use super::super::columns::{self, Columns as _, origin_columns};
use super::super::database::{Arg, Row, Statement, Work};
use super::super::history::LAST_OF_PAGE;
use super::super::{NewEvent, Origin, OutboxRow, Result, StoreError};
use super::{Operations, RequestedBy, audit, words};

/// Orders per statement.
const PAGE: i64 = 2_000;
/// The most orders that one call reads.
const LOOKED_AT: i64 = 20_000;
/// A call stops reading when it has found this many orders; its last page may add more.
const MOST: usize = 500;

/// Selects the columns that `columns::origin` reads.
macro_rules! origins {
    ($where:literal) => {
        concat!("SELECT ", origin_columns!(), " FROM orders o WHERE ", $where, " ORDER BY order_id")
    };
}

static BY_ID: Statement = Statement::new(origins!("order_id @ids1"));

static OPEN: Statement = Statement::new(origins!("order_id > $1 AND order_id <= $2 AND status = 'created' AND created_at < $3"));

// Locks are taken in one order: inbox rows by event id, then orders. The lot is read after that.
static AT_THE_GATE: Statement =
    Statement::new("SELECT event_id FROM inbox WHERE consumer = $1 AND event_id @ids2 ORDER BY event_id @lock");

static STILL_OPEN: Statement =
    Statement::new("SELECT order_id FROM orders WHERE order_id @ids1 AND status = 'created' ORDER BY order_id @lock");

static IN_THE_LOT: Statement = Statement::new("SELECT order_id FROM parked WHERE order_id @ids1");

static PARKED: Statement = Statement::new("SELECT event_id FROM parked WHERE consumer = $1 AND event_id @ids2");

static IN_THE_OUTBOX: Statement = Statement::new("SELECT event_id FROM outbox_waiting WHERE event_id @ids1");

static OPEN_THE_GATE: Statement = Statement::new("DELETE FROM inbox WHERE consumer = $1 AND event_id @ids2");

/// The orders to announce again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LostAnnouncements {
    /// These orders, if their announcement is lost.
    Ids(Vec<OrderId>),
    /// All whose announcement is lost, in id order.
    Before {
        /// Only orders that were accepted before this time.
        time: Timestamp,
        /// Only orders with a greater id.
        after: Option<OrderId>,
    },
}

/// A request to announce orders again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announce {
    pub which: LostAnnouncements,
    pub consumer: String,
    /// Whether to report what would happen and write nothing.
    pub dry_run: bool,
    pub requested_by: RequestedBy,
    pub at: Timestamp,
}

/// Why an order is not announced again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    NotFound,
    /// Its status is not `created`.
    NotCreated,
    /// Its event waits to be published.
    InOutbox,
    /// Its event, or another one of the order, is parked.
    InLot,
}

impl Left {
    /// Returns the reason's code in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "NOT_FOUND",
            Self::NotCreated => "NOT_CREATED",
            Self::InOutbox => "IN_OUTBOX",
            Self::InLot => "IN_LOT",
        }
    }
}

/// The result of an [`Announce`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnnouncedAgain {
    /// The orders that are announced again, or would be.
    pub orders: Vec<OrderId>,
    /// Their events in the outbox. Empty after a dry run.
    pub rows: Vec<OutboxRow>,
    /// Orders requested by id that are left alone, and why.
    pub left: Vec<(OrderId, Left)>,
    /// The order after which to continue; `None` when none is left.
    pub next: Option<OrderId>,
}

impl Operations {
    /// Appends the events of orders whose announcement is lost to the outbox again; `made` rebuilds each from its order.
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
        again.orders = lost.iter().map(|origin| origin.order.head.order_id).collect();
        if let LostAnnouncements::Ids(ids) = &ask.which {
            let known: HashSet<OrderId> = found.iter().map(|origin| origin.order.head.order_id).collect();
            again.left.extend(ids.iter().filter(|id| !known.contains(id)).map(|id| (*id, Left::NotFound)));
        } else {
            again.left.clear();
        }
        if ask.dry_run || lost.is_empty() {
            work.rollback().await?;
            return Ok(again);
        }
        if !settled.is_empty() {
            // The event was settled but its order did not change: it must pass the gate again. It has only one effect, since it
            // changes only an order that is `created`.
            work.run(&OPEN_THE_GATE, vec![Arg::text(&ask.consumer), Arg::Ids(settled)]).await?;
        }
        audit::write(work.as_mut(), &words::announce(ask, &again.orders)).await?;
        let events: Vec<NewEvent> = lost
            .iter()
            .map(|origin| made(origin).map_err(|error| StoreError::unreadable(OPERATION, error)))
            .collect::<Result<_>>()?;
        // Last, since it locks the outbox shards.
        let places = work.announce(&events.iter().collect::<Vec<_>>()).await?;
        work.commit().await?;
        again.rows = places.into_iter().zip(events).map(|(number, event)| OutboxRow::new(number, event)).collect();
        Ok(again)
    }

    /// Reads, without locks, orders that may have lost their announcement, and the order after which to continue.
    async fn candidates(&self, which: &LostAnnouncements) -> Result<(Vec<Origin>, Option<OrderId>)> {
        const OPERATION: &str = "operations.candidates";
        let (time, after) = match which {
            LostAnnouncements::Ids(ids) => {
                let args = vec![orders(ids.iter().copied())];
                return Ok((self.0.all(OPERATION, &BY_ID, args, columns::origin).await?, None));
            }
            LostAnnouncements::Before { time, after } => (*time, *after),
        };
        let (mut found, mut looked_at) = (Vec::new(), 0);
        let mut after = after.map_or(Uuid::nil(), |id| id.0);
        while looked_at < LOOKED_AT && found.len() < MOST {
            let page = vec![Arg::Id(Some(after)), Arg::Long(PAGE)];
            let Some(last) = self.0.first(OPERATION, &LAST_OF_PAGE, page, |row| row.id(0)).await? else {
                return Ok((found, None));
            };
            let args = vec![Arg::Id(Some(after)), Arg::Id(Some(last)), Arg::Time(Some(time))];
            let open = self.0.all(OPERATION, &OPEN, args, columns::origin).await?;
            found.extend(self.without_waiting(open).await?);
            (after, looked_at) = (last, looked_at + PAGE);
        }
        Ok((found, Some(OrderId(after))))
    }

    /// Leaves out orders whose event waits in the outbox, so that a call gets past a long backlog.
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

/// Locks the candidates; returns those whose announcement is lost, and their settled events. Adds the others to `left`.
async fn lost<'f>(
    work: &mut dyn Work,
    ask: &Announce,
    found: &'f [Origin],
    left: &mut Vec<(OrderId, Left)>,
) -> Result<(Vec<&'f Origin>, Vec<Uuid>)> {
    const OPERATION: &str = "operations.announce";
    let by_event = || vec![Arg::text(&ask.consumer), events(found)];
    let by_order = || vec![orders(found.iter().map(|origin| origin.order.head.order_id))];
    let mut settled = ids(OPERATION, &work.run(&AT_THE_GATE, by_event()).await?)?;
    let open = ids(OPERATION, &work.run(&STILL_OPEN, by_order()).await?)?;
    let mut parked = ids(OPERATION, &work.run(&IN_THE_LOT, by_order()).await?)?;
    parked.extend(ids(OPERATION, &work.run(&PARKED, by_event()).await?)?);
    let waiting = ids(OPERATION, &work.run(&IN_THE_OUTBOX, vec![events(found)]).await?)?;
    let mut lost = Vec::new();
    for origin in found {
        let (order, event) = (origin.order.head.order_id, origin.created_event_id);
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
