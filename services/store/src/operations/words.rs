//! What the audit and the timeline say about the actions of operators. Details are JSON objects.

use minishop_core::clock::Timestamp;
use minishop_core::ids::{OperationId, OrderId};
use minishop_core::operation::Tally;
use minishop_core::timeline::NoteKind;
use serde_json::{Value, json};

use super::super::Note;
use super::run::{DeletedEvent, Released};
use super::{Action, Announce, AuditRow, FrozenSet, Gap, NewOperation, Operation, RequestedBy, Run, Unpublished};

/// An operation begins, or is done at once because its set is empty.
pub(super) fn begin(new: &NewOperation, frozen: &FrozenSet) -> AuditRow {
    let outcome = if frozen.matched == 0 { "done" } else { "accepted" };
    let detail = json!({"matched": frozen.matched, "filter": new.filter});
    of_operation(new.id, entry(new.kind.as_str(), outcome, &new.requested_by, new.at, Some(&detail)))
}

/// An operator pauses, resumes or cancels an operation.
pub(super) fn control(id: OperationId, action: Action, requested_by: &RequestedBy, at: Timestamp) -> AuditRow {
    of_operation(id, entry(action.as_str(), "accepted", requested_by, at, None))
}

/// A discard deletes a dead letter. Nothing else keeps what the detail says.
pub(super) fn discard(run: &Run, parked_id: i64, deleted: &DeletedEvent, at: Timestamp) -> AuditRow {
    let (topic, partition, offset) = &deleted.position;
    let detail = json!({
        "deadLetterId": parked_id.to_string(), "eventId": deleted.event_id.to_string(),
        "orderId": deleted.order_id.map(|id| id.to_string()), "topic": topic, "partition": partition, "offset": offset,
        "errorCode": deleted.error_code,
    });
    step(run, "discarded", at, &detail)
}

/// An operation stops early.
pub(super) fn stop(run: &Run, because: &str, at: Timestamp) -> AuditRow {
    step(run, "stopped", at, &json!({ "because": because }))
}

/// An operation ends.
pub(super) fn end(run: &Run, tally: &Tally, at: Timestamp) -> AuditRow {
    let Tally { succeeded, failed, skipped, .. } = tally;
    step(run, "done", at, &json!({"succeeded": succeeded, "failed": failed, "skipped": skipped}))
}

/// Orders are announced again.
pub(super) fn announce(ask: &Announce, orders: &[OrderId]) -> AuditRow {
    let orders: Vec<String> = orders.iter().map(ToString::to_string).collect();
    entry("announce", "done", &ask.requested_by, ask.at, Some(&json!({ "orders": orders })))
}

/// Events that wait to be published are set aside.
pub(super) fn set_aside(which: &Unpublished, events: u64, requested_by: &RequestedBy, at: Timestamp) -> AuditRow {
    let detail = match which {
        Unpublished::Event(id) => json!({"eventId": id.to_string(), "events": events}),
        Unpublished::Topic(topic) => json!({"topic": topic, "events": events}),
    };
    entry("outbox_set_aside", "accepted", requested_by, at, Some(&detail))
}

/// The leader of a shard may step over missing numbers.
pub(super) fn step_over(shard: i16, from: i64, to: i64, requested_by: &RequestedBy, at: Timestamp) -> AuditRow {
    let detail = json!({"shard": shard, "from": from, "to": to});
    entry("outbox_step_over", "accepted", requested_by, at, Some(&detail))
}

/// A consumer may step over unreadable records. `Operations::skips` reads the detail.
pub(super) fn skip(gap: &Gap, requested_by: &RequestedBy, at: Timestamp) -> AuditRow {
    let detail = serde_json::to_string(gap).expect("names and numbers are plain values");
    AuditRow { detail: Some(detail), ..entry("skip", "accepted", requested_by, at, None) }
}

/// The timeline of an order whose dead letter was made due again. A refused copy gets no note: it is not the event of the order
/// that it names.
pub(super) fn redriven(run: &Run, released: &Released, at: Timestamp) -> Option<Note> {
    let order_id = released.order_id.filter(|_| released.announced)?;
    let detail = json!({"operation": run.operation.id.to_string(), "redrives": released.redrives}).to_string();
    Some(Note { order_id, kind: NoteKind::Redriven, at, cause: released.event_id, detail: Some(detail) })
}

/// The timeline of an order whose dead letter was discarded.
pub(super) fn discarded(run: &Run, deleted: &DeletedEvent, at: Timestamp) -> Option<Note> {
    let Operation { id, requested_by, .. } = &run.operation;
    let detail = json!({"operation": id.to_string(), "reason": requested_by.reason}).to_string();
    Some(Note { order_id: deleted.order_id?, kind: NoteKind::Discarded, at, cause: deleted.event_id, detail: Some(detail) })
}

fn step(run: &Run, outcome: &str, at: Timestamp, detail: &Value) -> AuditRow {
    let Operation { id, kind, requested_by, .. } = &run.operation;
    of_operation(*id, entry(kind.as_str(), outcome, requested_by, at, Some(detail)))
}

fn of_operation(id: OperationId, row: AuditRow) -> AuditRow {
    AuditRow { operation_id: Some(id), ..row }
}

fn entry(action: &str, outcome: &str, requested_by: &RequestedBy, at: Timestamp, detail: Option<&Value>) -> AuditRow {
    AuditRow {
        id: 0,
        at,
        action: action.to_owned(),
        requested_by: requested_by.clone(),
        outcome: outcome.to_owned(),
        operation_id: None,
        detail: detail.map(Value::to_string),
    }
}
