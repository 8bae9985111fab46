//! Reads and controls operations.

use minishop_contracts::ops::v1::control_operation_request::Action as WireAction;
use minishop_contracts::ops::v1::operation::Kind as WireKind;
use minishop_contracts::ops::v1::operation_progress::State as WireState;
use minishop_contracts::ops::v1::{
    ControlOperationRequest, ControlOperationResponse, GetOperationRequest, GetOperationResponse, ListOperationsRequest,
    ListOperationsResponse, OperationItem,
};
use minishop_core::ids::{OperationId, OrderId};
use minishop_core::operation::{Kind, State};
use minishop_core::refusal::Refusal;
use minishop_store::{Action, Item, OperationQuery};

use crate::app::App;
use crate::call::Call;
use crate::messages::operation;
use crate::pages::Page;
use crate::refusals;

/// Reads a page of operations, newest first.
pub async fn list(app: &App, call: &Call, request: ListOperationsRequest) -> Result<ListOperationsResponse, Refusal> {
    let kind = match request.kind() {
        WireKind::Unspecified => None,
        WireKind::Redrive => Some(Kind::Redrive),
        WireKind::Discard => Some(Kind::Discard),
    };
    let state = match request.state() {
        WireState::Unspecified => None,
        WireState::Running => Some(State::Running),
        WireState::Paused => Some(State::Paused),
        WireState::Stopped => Some(State::Stopped),
        WireState::Done => Some(State::Done),
    };
    let name = ["operations", &call.client.0, kind.map_or("", Kind::as_str), state.map_or("", State::as_str)];
    let page = Page::of(call, &name, request.page_size, &request.page_token)?;
    let query = OperationQuery { kind, state, before: page.after.map(OperationId), limit: page.limit() };
    let rows = call.read(app.store.operations.operations(&query)).await?;
    let (operations, next_page_token) = page.cut(rows, |row| row.id.0, operation);
    Ok(ListOperationsResponse { operations, next_page_token })
}

/// Reads an operation and its items that failed or were skipped.
pub async fn get(app: &App, call: &Call, request: GetOperationRequest) -> Result<GetOperationResponse, Refusal> {
    let id = parse_id(&request.id).ok_or_else(refusals::operation_not_found)?;
    let row = call.read(app.store.operations.operation(id)).await?.ok_or_else(refusals::operation_not_found)?;
    let items = call.read(app.store.operations.items(id)).await?;
    Ok(GetOperationResponse { operation: Some(operation(row)), items: items.into_iter().map(item).collect() })
}

/// Pauses, resumes or cancels an operation; returns its current state.
pub async fn control(app: &App, call: &Call, request: ControlOperationRequest) -> Result<ControlOperationResponse, Refusal> {
    let action = match request.action() {
        WireAction::Resume => Action::Resume,
        WireAction::Cancel => Action::Cancel,
        WireAction::Pause => Action::Pause,
        WireAction::Unspecified => {
            return Err(refusals::action_required(call.protocol));
        }
    };
    let id = parse_id(&request.id).ok_or_else(refusals::operation_not_found)?;
    let (requested_by, at) = (call.requested_by(request.operator, request.reason), app.clock.now());
    let operations = app.store.operations.clone();
    let write = async move { operations.control(id, action, &requested_by, at).await };
    let (row, changed) = app.detached_writes.write(call, write).await?.ok_or_else(refusals::operation_not_found)?;
    tracing::info!(operation.id = %id, changed, "an operator asks to {} an operation", action.as_str());
    Ok(ControlOperationResponse { operation: Some(operation(row)) })
}

fn parse_id(text: &str) -> Option<OperationId> {
    // All ids have the same format.
    OrderId::parse(text).map(|id| OperationId(id.0))
}

fn item(row: Item) -> OperationItem {
    OperationItem {
        dead_letter_id: row.parked_id.to_string(),
        event_id: row.event_id.map(|id| id.to_string()).unwrap_or_default(),
        order_id: row.order_id.map(|id| id.to_string()).unwrap_or_default(),
        state: row.state.as_str().to_owned(),
        reason: row.reason,
    }
}
