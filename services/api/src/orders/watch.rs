//! Watches an order: sends each of its versions once, until its status is final.
//!
//! Version 1 is always `created`, and only the status of an order changes. So the current row yields every version after a token.

use std::time::Duration;

use minishop_contracts::orders::v1::{Order, WatchOrderRequest};
use minishop_core::clock::Timestamp;
use minishop_core::order::Status;
use minishop_core::refusal::Refusal;
use minishop_platform::events::created::FIRST_VERSION;
use minishop_store::OrderRow;

use super::get::{parse, row};
use crate::app::App;
use crate::call::Call;
use crate::messages::order;
use crate::refusals;
use crate::watch_hub::Subscription;

/// A caller's watch on one order.
#[derive(Debug)]
pub struct Watch {
    subscription: Subscription,
    /// The row read at the start, until it is sent.
    present: Option<OrderRow>,
    /// Whether version 1 is to be sent before `present`.
    since_new: bool,
    /// The newest version that was sent or is in `present`.
    seen: i32,
    over: bool,
    /// The wait after a drain; drawn for each watch, so that clients do not all come back together.
    again: Duration,
}

/// Watches one of the caller's orders after the version in the resume token; `None` if that version is final.
pub async fn watch(app: &App, call: &Call, request: WatchOrderRequest) -> Result<Option<Watch>, Refusal> {
    let token = request.resume_token;
    if token < 0 {
        return Err(refusals::resume_token_invalid(call.protocol));
    }
    let again = refusals::retry_after(app.ids.as_ref());
    // Before the order is read, so that no change is missed in between.
    let subscription = app.watches.subscribe(parse(&request.order_id)?, again)?;
    let present = row(app, call, &request.order_id).await?;
    subscription.know(&present);
    if present.status.is_final() && token == present.version {
        return Ok(None);
    }
    let since_new = token < FIRST_VERSION && present.version > FIRST_VERSION;
    // A token above the newest version comes from before a restore of the store: the current row is sent.
    let was_sent = token == present.version;
    let seen = present.version;
    Ok(Some(Watch { subscription, present: Some(present).filter(|_| !was_sent), since_new, seen, over: false, again }))
}

impl Watch {
    /// Waits for the next version; `None` after a final one or a refusal. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<Order, Refusal>> {
        if self.over {
            return None;
        }
        if std::mem::take(&mut self.since_new) {
            return self.present.as_ref().map(|row| order(as_new(row)));
        }
        if let Some(row) = self.present.take() {
            return Some(self.deliver(row, None));
        }
        let Some(changed) = self.subscription.next(self.seen).await else {
            self.over = true;
            return Some(Err(refusals::watch_ended(self.again)));
        };
        Some(self.deliver(changed.order.clone(), changed.at))
    }

    fn deliver(&mut self, row: OrderRow, at: Option<Timestamp>) -> Result<Order, Refusal> {
        self.seen = row.version;
        self.over = row.status.is_final();
        self.subscription.delivered(at);
        order(row)
    }
}

fn as_new(row: &OrderRow) -> OrderRow {
    OrderRow { status: Status::Created, version: FIRST_VERSION, ..row.clone() }
}
