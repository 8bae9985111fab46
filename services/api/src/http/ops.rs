//! REST: what operators see.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::Request;
use minishop_contracts::ops::v1::ListDeadLettersRequest;

use super::{answered, from_query, no_query};
use crate::app::App;
use crate::call::{Call, Protocol};
use crate::{fields, ops};

/// Tells how much work waits.
pub async fn status(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let (parts, _) = request.into_parts();
    let work = async |call: &Call| match no_query(&parts) {
        found if found.is_empty() => ops::status(&app, call).await,
        found => Err(fields::refuse(Protocol::Rest, found)),
    };
    answered(&app, "GET /ops/status", &parts, work).await
}

/// Reads a page of dead letters.
pub async fn dead_letters(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let (parts, _) = request.into_parts();
    let work = async |call: &Call| ops::dead_letters(&app, call, &from_query::<ListDeadLettersRequest>(&parts)?).await;
    answered(&app, "GET /ops/dead-letters", &parts, work).await
}
