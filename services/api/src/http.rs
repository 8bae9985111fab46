//! REST: decode, call, encode. The route table comes first; one file per subject has the handlers.
//!
//! No rules, no wording: handlers read a request into a message, call a use case, and write its outcome.

mod answer;
mod entry;
mod operations;
mod orders;
mod request;
mod sse;
mod watch;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use http::Request;
use minishop_core::refusal::Refusal;

use crate::app::App;
use crate::protocol::Protocol;
use crate::refusals;

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
        ("GET", "/ops/status", get(operations::status)),
        ("GET", "/ops/stream", get(operations::stream)),
        ("GET", "/ops/dead-letters", get(operations::dead_letters)),
        ("GET", "/ops/dead-letters/{id}", get(operations::dead_letter)),
        ("GET", "/ops/dead-letter-groups", get(operations::groups)),
        ("POST", "/ops/dead-letters/redrive", post(operations::redrive)),
        ("POST", "/ops/dead-letters/discard", post(operations::discard)),
        ("GET", "/ops/parked-keys", get(operations::parked_keys)),
        ("POST", "/ops/orders/announce", post(operations::announce)),
        ("GET", "/ops/operations", get(operations::list)),
        ("GET", "/ops/operations/{id}", get(operations::get)),
        ("POST", "/ops/operations/{id}/control", post(operations::control)),
        ("GET", "/ops/audit", get(operations::audit)),
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
    let call = app.call(Protocol::Rest, "no route", &parts.headers);
    let refusal = entry::sizes(&parts).err().unwrap_or(refusal);
    answer::refusal(&call, &refusal)
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
