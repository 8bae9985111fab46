//! Reads one order. The other use cases of one order begin with these reads.

use minishop_contracts::orders::v1::{GetOrderRequest, Order};
use minishop_core::ids::OrderId;
use minishop_core::refusal::Refusal;
use minishop_store::{OrderRow, Origin};

use crate::app::App;
use crate::call::Call;
use crate::{messages, refusals};

/// Reads one of the caller's orders.
pub async fn get(app: &App, call: &Call, request: GetOrderRequest) -> Result<Order, Refusal> {
    messages::order(row(app, call, &request.order_id).await?)
}

/// Reads the row of one of the caller's orders.
pub async fn row(app: &App, call: &Call, id: &str) -> Result<OrderRow, Refusal> {
    let id = parse(id)?;
    call.read(app.store.reads.order(&call.client, id)).await?.ok_or_else(refusals::order_not_found)
}

/// Reads one of the caller's orders with its key, trace and event ids.
pub async fn find(app: &App, call: &Call, id: &str) -> Result<Origin, Refusal> {
    let id = parse(id)?;
    call.read(app.store.timeline.origin(&call.client, id)).await?.ok_or_else(refusals::order_not_found)
}

/// Parses a validated id.
pub fn parse(id: &str) -> Result<OrderId, Refusal> {
    OrderId::parse(id).ok_or_else(refusals::order_not_found)
}
