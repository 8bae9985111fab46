//! Timeline notes of claimed events; the kinds and their details are listed at [`NoteKind`].

use std::time::Duration;

use chrono::{SecondsFormat, TimeDelta};
use minishop_core::clock::Timestamp;
use minishop_core::parking::ErrorClass;
use minishop_core::timeline::NoteKind;
use minishop_store::Note;
use serde_json::{Value, json};

use super::claimed_event::ClaimedEvent;
use crate::event::decode::CreatedEvent;
use crate::event::outgoing::Death;

/// The message of an attempt whose outcome is unknown.
pub(super) const NO_END: &str = "the worker ended, or its lease expired, before the attempt finished";

pub(super) fn note(claimed: &ClaimedEvent, event: &CreatedEvent, at: Timestamp, kind: NoteKind, detail: Option<&Value>) -> Note {
    Note { order_id: event.head.order_id, kind, at, cause: claimed.event_id, detail: detail.map(Value::to_string) }
}

pub(super) fn attempt(
    claimed: &ClaimedEvent,
    event: &CreatedEvent,
    at: Timestamp,
    (class, message): (ErrorClass, &str),
    wait: Duration,
) -> Note {
    let next = at + TimeDelta::from_std(wait).unwrap_or_default();
    let detail = json!({
        "attempt": claimed.row.attempts,
        "class": class.as_str(),
        "message": message,
        "nextAttemptAt": next.to_rfc3339_opts(SecondsFormat::Millis, true),
    });
    note(claimed, event, at, NoteKind::Attempt, Some(&detail))
}

/// Builds the note of the attempt before this one, whose outcome is unknown.
pub(super) fn abandoned(claimed: &ClaimedEvent, event: &CreatedEvent, at: Timestamp) -> Note {
    let detail = json!({
        "attempt": claimed.row.attempts - 1,
        "class": ErrorClass::Crash.as_str(),
        "message": NO_END,
    });
    note(claimed, event, at, NoteKind::Attempt, Some(&detail))
}

pub(super) fn released(claimed: &ClaimedEvent, event: &CreatedEvent, at: Timestamp) -> Note {
    note(claimed, event, at, NoteKind::Released, Some(&json!({ "attempts": claimed.row.attempts })))
}

pub(super) fn late(claimed: &ClaimedEvent, event: &CreatedEvent, at: Timestamp) -> Note {
    note(claimed, event, at, NoteKind::FulfilledAfterCancel, Some(&json!({ "attempt": claimed.row.attempts })))
}

pub(super) fn dead(claimed: &ClaimedEvent, event: &CreatedEvent, death: &Death<'_>) -> Note {
    let Death { class, code, message, attempts, .. } = *death;
    let detail = json!({ "attempts": attempts, "class": class.as_str(), "code": code.as_str(), "message": message });
    note(claimed, event, death.last_failed, NoteKind::Dead, Some(&detail))
}
