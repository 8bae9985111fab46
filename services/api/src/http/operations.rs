//! REST: the reads and commands of operators.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::Request;
use minishop_contracts::ops::v1::{ControlOperationRequest, GetDeadLetterRequest, GetOperationRequest};
use tokio::time::timeout;

use super::request::{PathId, answered, from_query, message, no_query};
use super::{answer, entry, sse};
use crate::app::App;
use crate::call::Call;
use crate::protocol::Protocol;
use crate::status_feed::StatusSubscriber;
use crate::{fields, operations, refusals};

/// Reads the pipeline's status.
pub async fn status(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let (parts, _) = request.into_parts();
    let work = async |call: &Call| match no_query(&parts) {
        found if found.is_empty() => operations::status(&app, call).await,
        found => Err(refusals::fields(Protocol::Rest, found)),
    };
    answered(&app, "GET /ops/status", &parts, work).await
}

/// Streams the pipeline's status, now and whenever it changes.
pub async fn stream(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let (parts, _) = request.into_parts();
    let call = app.call(Protocol::Rest, "GET /ops/stream", &parts.headers);
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
    dead_letters: "GET /ops/dead-letters" => operations::dead_letters;
    /// Groups dead letters by their error.
    groups: "GET /ops/dead-letter-groups" => operations::dead_letter_groups;
    /// Reads a page of keys with parked events.
    parked_keys: "GET /ops/parked-keys" => operations::parked_keys;
    /// Reads a page of operations.
    list: "GET /ops/operations" => operations::list;
    /// Reads a page of the audit.
    audit: "GET /ops/audit" => operations::audit;
}

/// Reads one dead letter.
pub async fn dead_letter(State(app): State<Arc<App>>, PathId(id): PathId, request: Request<Body>) -> Response {
    let (parts, _) = request.into_parts();
    let work = async |call: &Call| {
        let request = fields::checked(Protocol::Rest, GetDeadLetterRequest { id }, no_query(&parts))?;
        operations::dead_letter(&app, call, request).await
    };
    answered(&app, "GET /ops/dead-letters/{id}", &parts, work).await
}

/// Reads one operation.
pub async fn get(State(app): State<Arc<App>>, PathId(id): PathId, request: Request<Body>) -> Response {
    let (parts, _) = request.into_parts();
    let work = async |call: &Call| {
        let request = fields::checked(Protocol::Rest, GetOperationRequest { id }, no_query(&parts))?;
        operations::get(&app, call, request).await
    };
    answered(&app, "GET /ops/operations/{id}", &parts, work).await
}

/// Defines handlers of commands, whose message is the body.
macro_rules! commands {
    ($($(#[$doc:meta])* $name:ident: $route:literal => $checked:path, $use_case:path;)+) => {
        $($(#[$doc])*
        pub async fn $name(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
            let (parts, body) = request.into_parts();
            let work = async |call: &Call| {
                let (message, found) = message(&parts, body).await?;
                $use_case(&app, call, $checked(call, message, found)?).await
            };
            answered(&app, $route, &parts, work).await
        })+
    };
}

commands! {
    /// Begins a redrive.
    redrive: "POST /ops/dead-letters/redrive" => operations::checked_choice, operations::redrive;
    /// Begins a discard.
    discard: "POST /ops/dead-letters/discard" => operations::checked_choice, operations::discard;
    /// Announces orders again.
    announce: "POST /ops/orders/announce" => operations::checked_announce, operations::announce;
}

/// Pauses, resumes or cancels an operation. Its id is the one in the path; one in the body is ignored.
pub async fn control(State(app): State<Arc<App>>, PathId(id): PathId, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let work = async |call: &Call| {
        let (message, found) = message::<ControlOperationRequest>(&parts, body).await?;
        let message = fields::checked(Protocol::Rest, ControlOperationRequest { id, ..message }, found)?;
        operations::control(&app, call, message).await
    };
    answered(&app, "POST /ops/operations/{id}/control", &parts, work).await
}
