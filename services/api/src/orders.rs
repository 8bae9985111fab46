//! The use cases of orders. Both protocols call these.

use minishop_contracts::FieldCode;
use minishop_contracts::orders::v1::order::Status as WireStatus;
use minishop_contracts::orders::v1::{
    CreateOrderResponse, GetOrderRequest, ListOrdersRequest, ListOrdersResponse, Order, OrderItem,
};
use minishop_core::currency::Currency;
use minishop_core::idempotency::{Fingerprint, IdempotencyKey};
use minishop_core::ids::{EventId, OrderId};
use minishop_core::money;
use minishop_core::order::{CreateOrder, Item, Status};
use minishop_core::order_head::OrderHead;
use minishop_core::refusal::{Code, Refusal};
use minishop_store::{ListQuery, NewOrder, OrderRow, Origin};
use tracing::debug;
use uuid::Uuid;

use crate::app::App;
use crate::call::Call;
use crate::fields;
use crate::intake::{Accepted, store_refusal};
use crate::reads::{fitting, page_size, read};
use crate::token::List;

/// The orders that one page scans for a status. `status` is not indexed: each change would have to move an index entry.
const LOOK_AT: i64 = 10_000;

/// The answer to a request to create an order.
#[derive(Debug, Clone, PartialEq)]
pub struct Created {
    /// The same for every request with the same key and command.
    pub reply: CreateOrderResponse,
    /// Whether an earlier request made the order.
    pub replayed: bool,
}

/// Accepts an order. When this returns `Ok`, the order and its event are on disk.
pub async fn create(app: &App, call: &Call, key: IdempotencyKey, command: CreateOrder) -> Result<Created, Refusal> {
    let accepted = app.queue.submit(new_order(app, call, key, &command), call.deadline)?.outcome().await?;
    debug!(order.id = %accepted.order_id, replayed = accepted.replayed, "the order is on disk");
    Ok(created(&accepted))
}

fn new_order(app: &App, call: &Call, key: IdempotencyKey, command: &CreateOrder) -> NewOrder {
    let created_at = app.clock.now();
    let head = OrderHead {
        order_id: OrderId::draw(&*app.ids, created_at),
        client_id: call.client.clone(),
        customer_id: command.customer_id().to_owned(),
        key,
        correlation_id: call.correlation_id.clone(),
        currency: command.currency().map(|currency| currency.code().to_owned()),
        total_minor: command.total_minor(),
        created_at,
    };
    let event_id = EventId::draw(&*app.ids, created_at);
    NewOrder {
        event: app.events.event(&head, event_id, command.items(), Some(&call.trace)),
        head,
        fingerprint: Fingerprint::of_create(command),
        items: serde_json::to_string(command.items()).expect("lines are text and whole numbers"),
        traceparent: Some(call.trace.traceparent()),
    }
}

/// Builds the answer from columns that never change, so that a replay equals the first answer byte for byte.
fn created(accepted: &Accepted) -> Created {
    let reply = CreateOrderResponse {
        order_id: accepted.order_id.to_string(),
        status: WireStatus::Created.into(),
        total: Some(money::to_major(accepted.total_minor, Currency::scale_of(accepted.currency.as_deref()))),
    };
    Created { reply, replayed: accepted.replayed }
}

/// Reads one of the caller's orders.
pub async fn get(app: &App, call: &Call, request: &GetOrderRequest) -> Result<Order, Refusal> {
    order(row(app, call, &request.order_id).await?)
}

/// Reads the row of one of the caller's orders.
pub async fn row(app: &App, call: &Call, id: &str) -> Result<OrderRow, Refusal> {
    let id = parse(id)?;
    read(call, app.store.orders.get(&call.client, id)).await?.ok_or_else(absent)
}

/// Reads one of the caller's orders with its key, trace and event ids.
pub async fn find(app: &App, call: &Call, id: &str) -> Result<Origin, Refusal> {
    let id = parse(id)?;
    read(call, app.store.timeline.origin(&call.client, id)).await?.ok_or_else(absent)
}

/// Parses a validated id.
pub fn parse(id: &str) -> Result<OrderId, Refusal> {
    OrderId::parse(id).ok_or_else(absent)
}

/// Builds the refusal of an order that is absent or another client's; callers cannot distinguish the two.
fn absent() -> Refusal {
    Refusal::new(Code::OrderNotFound, "There is no order with this id that you may see; check the id.")
}

/// Reads a page of the caller's orders, newest first. A short or even empty page may still have a next token.
pub async fn list(app: &App, call: &Call, request: &ListOrdersRequest) -> Result<ListOrdersResponse, Refusal> {
    let status = known_status(request.status);
    let status_name = status.map_or("", Status::as_str);
    let list = List(&["orders", &call.client.0, &request.customer_id, status_name]);
    let before = match request.page_token.as_str() {
        "" => None,
        token => Some(list.place(token).map(Uuid::from_bytes).map(OrderId).ok_or_else(|| foreign_token(call))?),
    };
    let size = page_size(request.page_size);
    let mut query = ListQuery {
        client_id: call.client.clone(),
        customer_id: Some(request.customer_id.clone()).filter(|id| !id.is_empty()),
        status,
        before,
        down_to: None,
        limit: i64::try_from(size + 1).unwrap_or(i64::MAX),
    };
    if status.is_some() {
        query.down_to = read(call, app.store.orders.nth(&query, LOOK_AT)).await?;
    }
    let mut rows = read(call, app.store.orders.list(&query)).await?;
    // One extra row shows whether a next page exists.
    let mut beyond = rows.len() > size;
    rows.truncate(size);
    let ids: Vec<OrderId> = rows.iter().map(|row| row.head.order_id).collect();
    let orders = fitting(rows.into_iter().map(order).collect::<Result<Vec<_>, _>>()?);
    beyond |= orders.len() < ids.len();
    let end = orders.len().checked_sub(1).map(|n| ids[n]);
    // The next page begins after the last order of this one, or after all scanned orders.
    let next = if beyond { end } else { query.down_to };
    let next_page_token = next.map(|id| list.token(id.0.as_bytes())).unwrap_or_default();
    Ok(ListOrdersResponse { orders, next_page_token })
}

/// Builds the refusal of a page token that is invalid or belongs to another list.
pub fn foreign_token(call: &Call) -> Refusal {
    let message = "must be a page token of this list";
    fields::refuse_one(call.protocol, "page_token", FieldCode::InvalidToken, message)
}

/// Converts a row to the contracts' message.
pub fn order(row: OrderRow) -> Result<Order, Refusal> {
    let scale = row.head.scale();
    let items: Vec<Item> = serde_json::from_str(&row.items).map_err(|error| {
        tracing::error!(order.id = %row.head.order_id, %error, "cannot read the items of a stored order");
        store_refusal(&minishop_store::StoreError::Fail { operation: "orders.items", source: error.into() })
    })?;
    let items = items.into_iter().map(|item| OrderItem {
        product_id: item.product_id,
        qty: item.qty,
        price: Some(money::to_major(item.price_minor, scale)),
    });
    Ok(Order {
        order_id: row.head.order_id.to_string(),
        customer_id: row.head.customer_id,
        items: items.collect(),
        total: Some(money::to_major(row.head.total_minor, scale)),
        currency: row.head.currency,
        status: wire_status(row.status).into(),
        version: row.version,
        created_at: Some(row.head.created_at.into()),
        correlation_id: row.head.correlation_id.as_str().to_owned(),
    })
}

const fn wire_status(status: Status) -> WireStatus {
    match status {
        Status::Created => WireStatus::Created,
        Status::Processed => WireStatus::Processed,
        Status::Failed => WireStatus::Failed,
        Status::Cancelled => WireStatus::Cancelled,
    }
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
