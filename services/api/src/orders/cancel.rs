//! Cancels an order.

use std::sync::Arc;

use minishop_contracts::orders::v1::{CancelOrderRequest, Order};
use minishop_core::order::Status;
use minishop_core::refusal::Refusal;
use minishop_platform::events::status_changed::{Cause, StatusChange};
use minishop_store::{OrderRow, Origin, Transition};
use serde_json::json;
use tracing::debug;

use super::get::find;
use crate::app::App;
use crate::call::Call;
use crate::canceller::CancelRequest;
use crate::messages::order;
use crate::refusals::{self, Doubt};

/// Cancels one of the caller's orders. When this returns `Ok`, the order is cancelled on disk, by this request or an earlier one.
pub async fn cancel(app: &App, call: &Call, request: CancelOrderRequest) -> Result<Order, Refusal> {
    let outcome = try_to(app, call, &request.order_id).await;
    app.metrics.cancelled(&outcome);
    outcome
}

async fn try_to(app: &App, call: &Call, id: &str) -> Result<Order, Refusal> {
    let mut origin = find(app, call, id).await?;
    if origin.order.status == Status::Created {
        let change = change(app, call, &origin);
        let (to, version) = (change.to, change.expected_version + 1);
        let (wanted, canceller) =
            (CancelRequest { change, detail: detail(call), deadline: call.deadline }, Arc::clone(&app.canceller));
        if app.detached_writes.run(call, Doubt::Cancel, async move { canceller.cancel(&wanted).await }).await? {
            debug!(order.id = %origin.order.head.order_id, "the order is cancelled");
            (origin.order.status, origin.order.version) = (to, version);
        } else {
            // Another request changed it first, or an earlier attempt of this one did.
            origin = find(app, call, id).await?;
        }
    }
    match origin.order.status {
        Status::Cancelled => order(origin.order),
        status => Err(refusals::order_not_cancellable(status)),
    }
}

/// Builds the change. The id of its event derives from that of `orders.created`, so that every attempt has the same one.
fn change(app: &App, call: &Call, origin: &Origin) -> Transition {
    let OrderRow { head, version, .. } = &origin.order;
    let change = StatusChange { order: head, version: *version, to: Status::Cancelled };
    let cause = Cause {
        event_id: origin.created_event_id,
        occurred_at: head.created_at,
        causation_id: call.correlation_id.as_str(),
        trace: &call.trace,
    };
    app.status_events.change(change, &cause, app.clock.now())
}

/// Returns the timeline's detail: the ids of the request.
fn detail(call: &Call) -> String {
    json!({"correlationId": call.correlation_id.as_str(), "traceId": call.trace.trace_id()}).to_string()
}
