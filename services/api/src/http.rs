//! REST: decode, call, encode.

mod answer;
mod entry;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{RawPathParams, State};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use bytes::Bytes;
use http::request::Parts;
use http::{Request, StatusCode};
use minishop_contracts::json::{self, JsonError};
use minishop_contracts::ops::v1::ListDeadLettersRequest;
use minishop_contracts::orders::v1::{CreateOrderRequest, GetOrderRequest, ListOrdersRequest};
use minishop_contracts::{Violation, query};
use minishop_core::idempotency::IdempotencyKey;
use minishop_core::order::CreateOrder;
use minishop_core::refusal::{Code, Refusal};
use serde::Serialize;

use crate::app::App;
use crate::call::{Call, Protocol};
use crate::metrics::Outcome;
use crate::orders::Created;
use crate::{fields, ops, orders};

/// Every route, as the contracts name it.
fn table() -> [(&'static str, &'static str, MethodRouter<Arc<App>>); 5] {
    [
        ("POST", "/orders", post(create_order)),
        ("GET", "/orders/{order_id}", get(get_order)),
        ("GET", "/orders", get(list_orders)),
        ("GET", "/ops/status", get(status)),
        ("GET", "/ops/dead-letters", get(dead_letters)),
    ]
}

/// Builds the REST listener's router.
pub fn router(app: Arc<App>) -> Router {
    table()
        .into_iter()
        .fold(Router::new(), |router, (_, path, handler)| router.route(path, handler))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .with_state(app)
}

async fn create_order(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let mut call = Call::new(&app, Protocol::Rest, "POST /orders", &parts.headers);
    let key = call.take_key(&app, &parts.headers);
    let work = async {
        let (key, command) = command(&app, &parts, body, key).await?;
        orders::create(&app, &call, key, command).await
    };
    let outcome = call.run(work).await;
    app.metrics.answered(&call, Outcome::of(&outcome));
    match outcome {
        Ok(Created { reply, replayed }) => answer::created(&call, &reply, replayed),
        Err(refusal) => answer::refusal(&call, &refusal),
    }
}

/// Checks a request to create an order, in the order in which checks answer.
async fn command(
    app: &App,
    parts: &Parts,
    body: Body,
    key: Result<IdempotencyKey, Refusal>,
) -> Result<(IdempotencyKey, CreateOrder), Refusal> {
    entry::check(app, parts)?;
    app.admit()?;
    entry::media_type(&parts.headers)?;
    let key = key?;
    let body = entry::body(body).await?;
    Ok((key, decode(parts, &body)?))
}

fn decode(parts: &Parts, body: &Bytes) -> Result<CreateOrder, Refusal> {
    let (message, mut found) = match json::decode_command::<CreateOrderRequest>(body) {
        Ok(message) => (message, Vec::new()),
        Err(JsonError::Fields(partial)) => (partial.message, partial.violations),
        Err(JsonError::Syntax(at)) => {
            let detail = format!("Line {}, column {}: {}; mend the body and send it again.", at.line, at.column, at.message);
            return Err(Refusal::new(Code::JsonInvalid, detail));
        }
    };
    found.extend(no_query(parts));
    fields::create_order(Protocol::Rest, message, found)
}

async fn get_order(
    State(app): State<Arc<App>>,
    params: Result<RawPathParams, axum::extract::rejection::RawPathParamsRejection>,
    request: Request<Body>,
) -> Response {
    let (parts, _) = request.into_parts();
    // What is not UTF-8 is no id either.
    let id = params.ok().and_then(|params| params.iter().next().map(|(_, id)| id.to_owned())).unwrap_or_else(|| "%".to_owned());
    let work = async |call: &Call| {
        let request = fields::checked(Protocol::Rest, GetOrderRequest { order_id: id }, no_query(&parts))?;
        orders::get(&app, call, &request).await
    };
    answered(&app, "GET /orders/{order_id}", &parts, work).await
}

async fn list_orders(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let (parts, _) = request.into_parts();
    let work = async |call: &Call| orders::list(&app, call, &from_query::<ListOrdersRequest>(&parts)?).await;
    answered(&app, "GET /orders", &parts, work).await
}

async fn status(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let (parts, _) = request.into_parts();
    let work = async |call: &Call| match no_query(&parts) {
        found if found.is_empty() => ops::status(&app, call).await,
        found => Err(fields::refuse(Protocol::Rest, found)),
    };
    answered(&app, "GET /ops/status", &parts, work).await
}

async fn dead_letters(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let (parts, _) = request.into_parts();
    let work = async |call: &Call| ops::dead_letters(&app, call, &from_query::<ListDeadLettersRequest>(&parts)?).await;
    answered(&app, "GET /ops/dead-letters", &parts, work).await
}

async fn no_route(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let detail = "Nothing answers under this path; check its spelling, a slash at the end counts.";
    refused(&app, request, Code::RouteNotFound, detail)
}

async fn no_method(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    refused(&app, request, Code::MethodNotAllowed, "The header `allow` lists the methods that this path takes.")
}

fn refused(app: &App, request: Request<Body>, code: Code, detail: &'static str) -> Response {
    let (parts, _) = request.into_parts();
    let call = Call::new(app, Protocol::Rest, "no route", &parts.headers);
    let refusal = entry::sizes(&parts).err().unwrap_or_else(|| Refusal::new(code, detail));
    answer::refusal(&call, &refusal)
}

/// Answers a read.
async fn answered<T: Serialize>(
    app: &App,
    operation: &'static str,
    parts: &Parts,
    work: impl AsyncFnOnce(&Call) -> Result<T, Refusal>,
) -> Response {
    let call = Call::new(app, Protocol::Rest, operation, &parts.headers);
    let work = async {
        entry::check(app, parts)?;
        work(&call).await
    };
    match call.run(work).await {
        Ok(message) => answer::message(&call, StatusCode::OK, &message),
        Err(refusal) => answer::refusal(&call, &refusal),
    }
}

fn no_query(parts: &Parts) -> Vec<Violation> {
    parts.uri.query().map_or_else(Vec::new, query::none)
}

fn from_query<T: json::Shaped>(parts: &Parts) -> Result<T, Refusal> {
    match query::decode::<T>(parts.uri.query().unwrap_or_default()) {
        Ok(message) => fields::checked(Protocol::Rest, message, Vec::new()),
        Err(partial) => Err(fields::refuse(Protocol::Rest, partial.into_violations())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_routes_are_those_of_the_contracts() {
        let mut ours: Vec<_> = table().iter().map(|(method, path, _)| (*method, *path)).collect();
        let mut theirs: Vec<_> = minishop_contracts::ROUTES.iter().map(|route| (route.method, route.path)).collect();
        ours.sort_unstable();
        theirs.sort_unstable();
        assert_eq!(ours, theirs);
    }
}
