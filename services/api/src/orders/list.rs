//! Lists orders.

use minishop_contracts::orders::v1::order::Status as WireStatus;
use minishop_contracts::orders::v1::{ListOrdersRequest, ListOrdersResponse};
use minishop_core::ids::OrderId;
use minishop_core::order::Status;
use minishop_core::refusal::Refusal;
use minishop_store::ListQuery;

use crate::app::App;
use crate::call::Call;
use crate::messages::order;
use crate::pages::Page;

/// The orders that one page scans for a status. `status` is not indexed: each change would have to move an index entry.
const LOOK_AT: i64 = 10_000;

/// Reads a page of the caller's orders, newest first. A short or even empty page may still have a next token.
pub async fn list(app: &App, call: &Call, request: ListOrdersRequest) -> Result<ListOrdersResponse, Refusal> {
    let status = known_status(request.status);
    let name = ["orders", &call.client.0, &request.customer_id, status.map_or("", Status::as_str)];
    let page = Page::of(call, &name, request.page_size, &request.page_token)?;
    let mut query = ListQuery {
        client_id: call.client.clone(),
        customer_id: Some(request.customer_id.clone()).filter(|id| !id.is_empty()),
        status,
        before: page.after.map(OrderId),
        down_to: None,
        limit: page.limit(),
    };
    if status.is_some() {
        query.down_to = call.read(app.store.reads.nth_order(&query, LOOK_AT)).await?;
    }
    let rows = call.read(app.store.reads.orders(&query)).await?;
    let (orders, next) = page.try_cut(rows, |row| row.head.order_id.0, order)?;
    // The next page begins after the last order of this one, or after all scanned orders.
    let next = next.or(query.down_to.map(|id| id.0));
    Ok(ListOrdersResponse { orders, next_page_token: page.token(next) })
}

/// Converts a validated status filter; unspecified means no filter.
fn known_status(wire: i32) -> Option<Status> {
    match WireStatus::try_from(wire) {
        Ok(WireStatus::Created) => Some(Status::Created),
        Ok(WireStatus::Processed) => Some(Status::Processed),
        Ok(WireStatus::Failed) => Some(Status::Failed),
        Ok(WireStatus::Cancelled) => Some(Status::Cancelled),
        Ok(WireStatus::Unspecified) | Err(_) => None,
    }
}
