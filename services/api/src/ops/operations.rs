//! Reads and controls operations.

use minishop_contracts::json;
use minishop_contracts::ops::v1::control_operation_request::Action as WireAction;
use minishop_contracts::ops::v1::operation::Kind as WireKind;
use minishop_contracts::ops::v1::operation_progress::State as WireState;
use minishop_contracts::ops::v1::{
    ControlOperationRequest, ControlOperationResponse, GetOperationRequest, GetOperationResponse, ListOperationsRequest,
    ListOperationsResponse, Operation, OperationItem, OperationProgress,
};
use minishop_core::ids::{OperationId, OrderId};
use minishop_core::operation::{Kind, State, Tally};
use minishop_core::refusal::Refusal;
use minishop_store::{Action, Item, OperationQuery, RequestedBy};

use super::{limit, page, place};
use crate::app::App;
use crate::call::Call;
use crate::reads::{page_size, read};
use crate::refusals;
use crate::token::List;

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
    let list = List(&name);
    let before = place(call, list, &request.page_token)?.map(|id| OperationId(uuid::Uuid::from_bytes(id)));
    let size = page_size(request.page_size);
    let query = OperationQuery { kind, state, before, limit: limit(size) };
    let rows = read(call, app.store.operations.operations(&query)).await?;
    let (operations, next_page_token) = page(rows, size, list, |row| row.id.0.as_bytes().to_vec(), operation);
    Ok(ListOperationsResponse { operations, next_page_token })
}

/// Reads an operation and its items that failed or were skipped.
pub async fn get(app: &App, call: &Call, request: GetOperationRequest) -> Result<GetOperationResponse, Refusal> {
    let id = parse_id(&request.id).ok_or_else(refusals::operation_not_found)?;
    let row = read(call, app.store.operations.operation(id)).await?.ok_or_else(refusals::operation_not_found)?;
    let items = read(call, app.store.operations.items(id)).await?;
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
    let (requested_by, at) = (requested_by(call, request.operator, request.reason), app.clock.now());
    let operations = app.store.operations.clone();
    let write = async move { operations.control(id, action, &requested_by, at).await };
    let (row, changed) = app.detached_writes.write(call, write).await?.ok_or_else(refusals::operation_not_found)?;
    tracing::info!(operation.id = %id, changed, "an operator asks to {} an operation", action.as_str());
    Ok(ControlOperationResponse { operation: Some(operation(row)) })
}

/// Returns the requester, for the audit.
pub(super) fn requested_by(call: &Call, operator: String, reason: String) -> RequestedBy {
    RequestedBy { client_id: call.client.clone(), operator, reason, correlation_id: call.correlation_id.clone() }
}

fn parse_id(text: &str) -> Option<OperationId> {
    // All ids have the same format.
    OrderId::parse(text).map(|id| OperationId(id.0))
}

/// Converts a row to the contracts' message.
pub(super) fn operation(row: minishop_store::Operation) -> Operation {
    let filter = row.filter.as_deref().and_then(|text| json::decode_command(text.as_bytes()).ok());
    Operation {
        id: row.id.to_string(),
        kind: match row.kind {
            Kind::Redrive => WireKind::Redrive,
            Kind::Discard => WireKind::Discard,
        }
        .into(),
        state: match row.state {
            State::Running => WireState::Running,
            State::Paused => WireState::Paused,
            State::Stopped => WireState::Stopped,
            State::Done => WireState::Done,
        }
        .into(),
        filter,
        rate: row.rate,
        failure_ratio: if row.kind == Kind::Redrive { row.failure_ratio } else { 0.0 },
        reason: row.requested_by.reason,
        operator: row.requested_by.operator,
        client: row.requested_by.client_id.0,
        correlation_id: row.requested_by.correlation_id.as_str().to_owned(),
        created_at: Some(row.created_at.into()),
        ended_at: row.ended_at.map(Into::into),
        stopped_because: row.stopped_because,
        progress: Some(progress(row.kind, &row.tally)),
    }
}

fn progress(kind: Kind, tally: &Tally) -> OperationProgress {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let step = if kind == Kind::Redrive { i32::try_from(tally.step()).unwrap_or(0) } else { 0 };
    OperationProgress {
        pending: count(tally.pending),
        released: count(tally.released),
        succeeded: count(tally.succeeded),
        failed: count(tally.failed),
        skipped: count(tally.skipped),
        step,
    }
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
