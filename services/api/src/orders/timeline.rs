//! The timeline of an order, from the database alone.

use std::collections::BTreeMap;

use minishop_contracts::orders::v1::{GetOrderTimelineRequest, GetOrderTimelineResponse, ParkedEvent, TimelineEntry};
use minishop_core::refusal::Refusal;
use minishop_platform::events::created::FIRST_VERSION;
use minishop_platform::telemetry::propagation::TraceContext;
use minishop_store::{Fact, Origin, ParkedState};
use serde_json::Value;

use super::get::find;
use crate::app::App;
use crate::call::Call;
use crate::pages::{Page, cut_to, limit};

/// Maximum number of parked events shown for an order.
const STANDING: usize = 20;

/// Reads a page of an order's timeline, oldest first.
pub async fn timeline(app: &App, call: &Call, request: GetOrderTimelineRequest) -> Result<GetOrderTimelineResponse, Refusal> {
    let origin = find(app, call, &request.order_id).await?;
    let (id, order_id) = (origin.order.head.order_id, origin.order.head.order_id.to_string());
    let page = Page::<i64>::of(call, &["timeline", &call.client.0, &order_id], request.page_size, &request.page_token)?;
    // The `created` entry comes from the order's row, not from the table.
    let mut entries: Vec<TimelineEntry> = page.after.is_none().then(|| created(&origin)).into_iter().collect();
    let room = page.size - entries.len();
    let mut facts = call.read(app.store.timeline.facts(id, page.after.unwrap_or(0), limit(room))).await?;
    let beyond = cut_to(&mut facts, room);
    let next_page_token = page.token(beyond.then(|| facts.last().map_or(0, |fact| fact.id)));
    entries.extend(facts.into_iter().map(|fact| entry(&origin, fact)));
    let mut parked = call.read(app.store.timeline.standing(id, limit(STANDING))).await?;
    let more_parked = cut_to(&mut parked, STANDING);
    let parked = parked.into_iter().map(standing).collect();
    Ok(GetOrderTimelineResponse { order_id, entries, parked, more_parked, next_page_token })
}

fn created(origin: &Origin) -> TimelineEntry {
    let correlation_id = origin.order.head.correlation_id.as_str().to_owned();
    TimelineEntry {
        kind: "created".to_owned(),
        at: Some(origin.order.head.created_at.into()),
        version: FIRST_VERSION,
        event_id: origin.created_event_id.to_string(),
        causation_id: correlation_id.clone(),
        correlation_id,
        trace_id: trace_id(origin),
        detail: BTreeMap::new(),
    }
}

/// Converts a row. A correlation id or trace id in its detail is another request's and replaces that of the creating request.
fn entry(origin: &Origin, fact: Fact) -> TimelineEntry {
    let mut detail = fact.detail.as_deref().map(named).unwrap_or_default();
    let own = |name: &str| detail.remove(name);
    let [correlation_id, trace_id_own] = ["correlationId", "traceId"].map(own);
    let version = fact.version.unwrap_or(0);
    // The order's row keeps only the event id of its last change.
    let told_by = origin.settled_event_id.filter(|_| version == origin.order.version);
    TimelineEntry {
        kind: fact.kind,
        at: Some(fact.at.into()),
        version,
        event_id: told_by.map(|id| id.to_string()).unwrap_or_default(),
        causation_id: fact.cause.to_string(),
        correlation_id: correlation_id.unwrap_or_else(|| origin.order.head.correlation_id.as_str().to_owned()),
        trace_id: trace_id_own.unwrap_or_else(|| trace_id(origin)),
        detail,
    }
}

/// Converts any JSON object to texts: other crates, and newer versions, write it.
fn named(detail: &str) -> BTreeMap<String, String> {
    let Ok(Value::Object(members)) = serde_json::from_str(detail) else { return BTreeMap::new() };
    let text = |value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    members.into_iter().map(|(name, value)| (name, text(value))).collect()
}

fn trace_id(origin: &Origin) -> String {
    let trace = origin.traceparent.as_deref().and_then(|parent| TraceContext::parse(parent, None));
    trace.map(|trace| trace.trace_id().to_owned()).unwrap_or_default()
}

fn standing(event: ParkedState) -> ParkedEvent {
    ParkedEvent {
        event_id: event.event_id.to_string(),
        state: event.state.as_str().to_owned(),
        attempts: event.attempts,
        next_attempt_at: event.next_attempt_at.map(Into::into),
        parked_at: Some(event.parked_at.into()),
        blocks: event.blocks,
        error_code: event.error_code.unwrap_or_default(),
        error_message: event.error_message.unwrap_or_default(),
        needs_type: event.needs_type.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_of_any_form_is_told_as_names_and_texts() {
        let told = named(r#"{"reason":"a \"b\"","attempts":3,"steps":[1,2],"dry":true,"none":null}"#);
        let told: Vec<_> = told.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        assert_eq!(told, [("attempts", "3"), ("dry", "true"), ("none", "null"), ("reason", "a \"b\""), ("steps", "[1,2]")]);
        assert_eq!((named("[]").len(), named("{").len()), (0, 0));
    }
}
