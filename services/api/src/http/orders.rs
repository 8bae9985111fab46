//! REST: orders.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::Request;
use http::request::Parts;
use minishop_contracts::json;
use minishop_contracts::orders::v1::{CancelOrderRequest, CreateOrderRequest, GetOrderRequest, GetOrderTimelineRequest};
use minishop_contracts::query;
use minishop_core::idempotency::IdempotencyKey;
use minishop_core::order::CreateOrder;
use minishop_core::refusal::Refusal;
use minishop_core::violation::{FieldCode, Violation};

use super::request::{PathId, answered, decode, from_query, no_query};
use super::{answer, entry};
use crate::app::App;
use crate::call::Call;
use crate::orders::CreateReply;
use crate::protocol::Protocol;
use crate::{fields, orders, refusals};

/// Accepts an order.
pub async fn create(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let mut call = app.call(Protocol::Rest, "POST /orders", &parts.headers);
    let key = app.take_key(&mut call, &parts.headers);
    match orders::create(&app, &call, command(&app, &parts, body, key)).await {
        Ok(CreateReply { reply, replayed }) => answer::created(&call, &reply, replayed),
        Err(refusal) => answer::refusal(&call, &refusal),
    }
}

/// Checks and decodes a request to create an order. The first check that fails is the answer.
async fn command(
    app: &App,
    parts: &Parts,
    body: Body,
    key: Result<IdempotencyKey, Refusal>,
) -> Result<(IdempotencyKey, CreateOrder), Refusal> {
    entry::check(app, parts)?;
    orders::admit(app)?;
    entry::media_type(&parts.headers)?;
    let key = key?;
    let body = entry::body(body).await?;
    let (message, found) = decode::<CreateOrderRequest>(parts, &body)?;
    Ok((key, fields::create_order(Protocol::Rest, message, found)?))
}

/// Reads one order.
pub async fn get(State(app): State<Arc<App>>, PathId(id): PathId, request: Request<Body>) -> Response {
    let (parts, _) = request.into_parts();
    let work = async |call: &Call| {
        let request = fields::checked(Protocol::Rest, GetOrderRequest { order_id: id }, no_query(&parts))?;
        orders::get(&app, call, request).await
    };
    answered(&app, "GET /orders/{order_id}", &parts, work).await
}

/// Reads a page of orders.
pub async fn list(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let (parts, _) = request.into_parts();
    let work = async |call: &Call| orders::list(&app, call, from_query(&parts)?).await;
    answered(&app, "GET /orders", &parts, work).await
}

/// Cancels an order. The body must be absent or an empty object.
pub async fn cancel(State(app): State<Arc<App>>, PathId(id): PathId, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let work = async |call: &Call| {
        let body = entry::body(body).await?;
        if !body.is_empty() {
            entry::media_type(&parts.headers)?;
        }
        let mut found = json::nothing(&body).map_err(|at| refusals::json_invalid(&at))?;
        found.extend(no_query(&parts));
        orders::cancel(&app, call, fields::checked(Protocol::Rest, CancelOrderRequest { order_id: id }, found)?).await
    };
    answered(&app, "POST /orders/{order_id}/cancel", &parts, work).await
}

/// Reads a page of an order's timeline.
pub async fn timeline(State(app): State<Arc<App>>, PathId(id): PathId, request: Request<Body>) -> Response {
    let (parts, _) = request.into_parts();
    let work = async |call: &Call| orders::timeline(&app, call, timeline_request(&parts, id)?).await;
    answered(&app, "GET /orders/{order_id}/timeline", &parts, work).await
}

fn timeline_request(parts: &Parts, order_id: String) -> Result<GetOrderTimelineRequest, Refusal> {
    let (mut message, mut found) = match query::decode::<GetOrderTimelineRequest>(parts.uri.query().unwrap_or_default()) {
        Ok(message) => (message, Vec::new()),
        Err(partial) => (partial.message, partial.violations),
    };
    if !std::mem::replace(&mut message.order_id, order_id).is_empty() {
        found.push(Violation::new("order_id", FieldCode::DuplicateField, "is already given in the path"));
    }
    fields::checked(Protocol::Rest, message, found)
}
