//! What handlers share: they read the path, the query and the body, and answer.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams};
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;
use minishop_contracts::json::{self, JsonError};
use minishop_contracts::query;
use minishop_core::refusal::Refusal;
use minishop_core::violation::Violation;
use serde::Serialize;

use super::{answer, entry};
use crate::app::App;
use crate::call::Call;
use crate::protocol::Protocol;
use crate::{fields, refusals};

/// Checks a request's sizes and host, runs `work`, and answers.
pub async fn answered<T: Serialize>(
    app: &App,
    operation: &'static str,
    parts: &Parts,
    work: impl AsyncFnOnce(&Call) -> Result<T, Refusal>,
) -> Response {
    let call = app.call(Protocol::Rest, operation, &parts.headers);
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
pub struct PathId(pub String);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let params = RawPathParams::from_request_parts(parts, state).await.ok();
        let id = params.and_then(|params| params.iter().next().map(|(_, id)| id.to_owned()));
        // Not UTF-8: `%` stands for any invalid id.
        Ok(Self(id.unwrap_or_else(|| "%".to_owned())))
    }
}

/// Returns the violations of a query where none is expected.
pub fn no_query(parts: &Parts) -> Vec<Violation> {
    parts.uri.query().map_or_else(Vec::new, query::none)
}

/// Reads and validates a message from the query.
pub fn from_query<T: json::Shaped>(parts: &Parts) -> Result<T, Refusal> {
    match query::decode::<T>(parts.uri.query().unwrap_or_default()) {
        Ok(message) => fields::checked(Protocol::Rest, message, Vec::new()),
        Err(partial) => Err(refusals::fields(Protocol::Rest, partial.into_violations())),
    }
}

/// Reads a message from a body. Also returns the violations of its members and of the query.
pub fn decode<T: json::Shaped>(parts: &Parts, body: &Bytes) -> Result<(T, Vec<Violation>), Refusal> {
    let (message, mut found) = match json::decode_command::<T>(body) {
        Ok(message) => (message, Vec::new()),
        Err(JsonError::Fields(partial)) => (partial.message, partial.violations),
        Err(JsonError::Syntax(at)) => return Err(refusals::json_invalid(&at)),
    };
    found.extend(no_query(parts));
    Ok((message, found))
}

/// Waits for a body, and reads a message from it as [`decode`] does.
pub async fn message<T: json::Shaped>(parts: &Parts, body: Body) -> Result<(T, Vec<Violation>), Refusal> {
    entry::media_type(&parts.headers)?;
    decode(parts, &entry::body(body).await?)
}
