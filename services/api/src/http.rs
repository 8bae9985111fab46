//! REST: decode, call, encode.

mod answer;
mod entry;
mod ops;
mod orders;
mod sse;
mod watch;

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams, State};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use http::request::Parts;
use http::{Request, StatusCode};
use minishop_contracts::{json, query};
use minishop_core::refusal::Refusal;
use minishop_core::violation::Violation;
use serde::Serialize;

use crate::app::App;
use crate::call::Call;
use crate::protocol::Protocol;
use crate::{fields, refusals};

type Route = (&'static str, &'static str, MethodRouter<Arc<App>>);

/// Every route, as the contracts name it.
fn table() -> Vec<Route> {
    vec![
        ("POST", "/orders", post(orders::create)),
        ("GET", "/orders/{order_id}", get(orders::get)),
        ("GET", "/orders", get(orders::list)),
        ("POST", "/orders/{order_id}/cancel", post(orders::cancel)),
        ("GET", "/orders/{order_id}/events", get(watch::events)),
        ("GET", "/orders/{order_id}/timeline", get(orders::timeline)),
        ("GET", "/ops/status", get(ops::status)),
        ("GET", "/ops/stream", get(ops::stream)),
        ("GET", "/ops/dead-letters", get(ops::dead_letters)),
        ("GET", "/ops/dead-letters/{id}", get(ops::dead_letter)),
        ("GET", "/ops/dead-letter-groups", get(ops::groups)),
        ("POST", "/ops/dead-letters/redrive", post(ops::redrive)),
        ("POST", "/ops/dead-letters/discard", post(ops::discard)),
        ("GET", "/ops/parked-keys", get(ops::parked_keys)),
        ("POST", "/ops/orders/announce", post(ops::announce)),
        ("GET", "/ops/operations", get(ops::operations)),
        ("GET", "/ops/operations/{id}", get(ops::operation)),
        ("POST", "/ops/operations/{id}/control", post(ops::control)),
        ("GET", "/ops/audit", get(ops::audit)),
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

async fn no_route(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    refused(&app, request, refusals::route_not_found())
}

async fn no_method(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    refused(&app, request, refusals::method_not_allowed())
}

fn refused(app: &App, request: Request<Body>, refusal: Refusal) -> Response {
    let (parts, _) = request.into_parts();
    let call = Call::new(app, Protocol::Rest, "no route", &parts.headers);
    let refusal = entry::sizes(&parts).err().unwrap_or(refusal);
    answer::refusal(&call, &refusal)
}

/// Checks a request's sizes and host, runs `work`, and answers.
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

/// The id in a path such as `/orders/{order_id}`, not validated.
struct PathId(String);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let params = RawPathParams::from_request_parts(parts, state).await.ok();
        let id = params.and_then(|params| params.iter().next().map(|(_, id)| id.to_owned()));
        // Not UTF-8: `%` stands for any invalid id.
        Ok(Self(id.unwrap_or_else(|| "%".to_owned())))
    }
}

fn no_query(parts: &Parts) -> Vec<Violation> {
    parts.uri.query().map_or_else(Vec::new, query::none)
}

fn from_query<T: json::Shaped>(parts: &Parts) -> Result<T, Refusal> {
    match query::decode::<T>(parts.uri.query().unwrap_or_default()) {
        Ok(message) => fields::checked(Protocol::Rest, message, Vec::new()),
        Err(partial) => Err(refusals::fields(Protocol::Rest, partial.into_violations())),
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
