//! REST: the reads and commands of operators.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::Request;
use http::request::Parts;
use minishop_contracts::json::{self, JsonError};
use minishop_contracts::ops::v1::{
    AnnounceOrdersRequest, ControlOperationRequest, DiscardDeadLettersRequest, GetDeadLetterRequest, GetOperationRequest,
    RedriveDeadLettersRequest,
};
use minishop_core::refusal::Refusal;
use minishop_core::violation::Violation;
use tokio::time::timeout;

use super::{PathId, answer, answered, entry, from_query, no_query, sse};
use crate::app::App;
use crate::call::Call;
use crate::ops::StatusSubscriber;
use crate::protocol::Protocol;
use crate::{fields, ops, refusals};

/// Reads the pipeline's status.
pub async fn status(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let (parts, _) = request.into_parts();
    let work = async |call: &Call| match no_query(&parts) {
        found if found.is_empty() => ops::status(&app, call).await,
        found => Err(refusals::fields(Protocol::Rest, found)),
    };
    answered(&app, "GET /ops/status", &parts, work).await
}

/// Streams the pipeline's status, now and whenever it changes.
pub async fn stream(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let (parts, _) = request.into_parts();
    let call = Call::new(&app, Protocol::Rest, "GET /ops/stream", &parts.headers);
    let work = async {
        entry::check(&app, &parts)?;
        match no_query(&parts) {
            found if found.is_empty() => app.status_feed.subscribe(),
            found => Err(refusals::fields(Protocol::Rest, found)),
        }
    };
    match call.run(work).await {
        Ok(subscriber) => answer::events(&call, sse::body(subscriber, next)),
        Err(refusal) => answer::refusal(&call, &refusal),
    }
}

/// Waits for the next status; a comment fills silence. A drain ends the stream, and the client reconnects elsewhere.
async fn next(mut subscriber: StatusSubscriber) -> Option<(Bytes, StatusSubscriber)> {
    let bytes = match timeout(sse::SILENCE, subscriber.next()).await {
        Err(_) => sse::comment(),
        Ok(Some(Ok(now))) => sse::event("status", None, &now),
        Ok(Some(Err(_)) | None) => return None,
    };
    Some((bytes, subscriber))
}

/// Defines handlers of lists, whose message is the query.
macro_rules! lists {
    ($($(#[$doc:meta])* $name:ident: $route:literal => $use_case:path;)+) => {
        $($(#[$doc])*
        pub async fn $name(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
            let (parts, _) = request.into_parts();
            let work = async |call: &Call| $use_case(&app, call, from_query(&parts)?).await;
            answered(&app, $route, &parts, work).await
        })+
    };
}

lists! {
    /// Reads a page of dead letters.
    dead_letters: "GET /ops/dead-letters" => ops::dead_letters;
    /// Groups dead letters by their error.
    groups: "GET /ops/dead-letter-groups" => ops::groups;
    /// Reads a page of keys with parked events.
    parked_keys: "GET /ops/parked-keys" => ops::parked_keys;
    /// Reads a page of operations.
    operations: "GET /ops/operations" => ops::operations;
    /// Reads a page of the audit.
    audit: "GET /ops/audit" => ops::audit;
}

/// Reads one dead letter.
pub async fn dead_letter(State(app): State<Arc<App>>, PathId(id): PathId, request: Request<Body>) -> Response {
    let (parts, _) = request.into_parts();
    let work = async |call: &Call| {
        let request = fields::checked(Protocol::Rest, GetDeadLetterRequest { id }, no_query(&parts))?;
        ops::dead_letter(&app, call, request).await
    };
    answered(&app, "GET /ops/dead-letters/{id}", &parts, work).await
}

/// Reads one operation.
pub async fn operation(State(app): State<Arc<App>>, PathId(id): PathId, request: Request<Body>) -> Response {
    let (parts, _) = request.into_parts();
    let work = async |call: &Call| {
        let request = fields::checked(Protocol::Rest, GetOperationRequest { id }, no_query(&parts))?;
        ops::operation(&app, call, request).await
    };
    answered(&app, "GET /ops/operations/{id}", &parts, work).await
}

/// Begins a redrive.
pub async fn redrive(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let work = async |call: &Call| {
        let (message, found) = message::<RedriveDeadLettersRequest>(&parts, body).await?;
        ops::redrive(&app, call, ops::checked(call, message, found)?).await
    };
    answered(&app, "POST /ops/dead-letters/redrive", &parts, work).await
}

/// Begins a discard.
pub async fn discard(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let work = async |call: &Call| {
        let (message, found) = message::<DiscardDeadLettersRequest>(&parts, body).await?;
        ops::discard(&app, call, ops::checked(call, message, found)?).await
    };
    answered(&app, "POST /ops/dead-letters/discard", &parts, work).await
}

/// Announces orders again.
pub async fn announce(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let work = async |call: &Call| {
        let (message, found) = message::<AnnounceOrdersRequest>(&parts, body).await?;
        ops::announce(&app, call, ops::checked_announce(call, message, found)?).await
    };
    answered(&app, "POST /ops/orders/announce", &parts, work).await
}

/// Pauses, resumes or cancels an operation. Its id is the one in the path; one in the body is ignored.
pub async fn control(State(app): State<Arc<App>>, PathId(id): PathId, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let work = async |call: &Call| {
        let (message, found) = message::<ControlOperationRequest>(&parts, body).await?;
        let message = fields::checked(Protocol::Rest, ControlOperationRequest { id, ..message }, found)?;
        ops::control(&app, call, message).await
    };
    answered(&app, "POST /ops/operations/{id}/control", &parts, work).await
}

/// Decodes a body. Also returns the violations of its members and of the query.
async fn message<T: json::Shaped>(parts: &Parts, body: Body) -> Result<(T, Vec<Violation>), Refusal> {
    entry::media_type(&parts.headers)?;
    let body = entry::body(body).await?;
    let (message, mut found) = match json::decode_command::<T>(&body) {
        Ok(message) => (message, Vec::new()),
        Err(JsonError::Fields(partial)) => (partial.message, partial.violations),
        Err(JsonError::Syntax(at)) => return Err(refusals::json_invalid(&at)),
    };
    found.extend(no_query(parts));
    Ok((message, found))
}
