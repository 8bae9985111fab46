//! Rebuilds the events of stored orders: for a replay, for an announcement that is lost, and for outbox rows that are brief.
//!
//! An order's created event has the same bytes, id and correlation as the first time; its final event has the same envelope under
//! the same id. What the store does not keep is not invented: once the outbox row is gone, that is `tracestate`, and the span of the
//! step that ended the order.

use std::collections::{BTreeSet, HashMap};

use minishop_contracts::key::EventKey;
use minishop_core::ids::{Ids, OrderId};
use minishop_core::order::{Item, Status};
use minishop_store::{End, NewEvent, Origin, Outbox, OutboxRow, PastOrder, Role, StoreError};

use super::created::CreatedEvents;
use super::status_changed::{StatusChange, StatusEvents};
use crate::config::Config;
use crate::telemetry::propagation::TraceContext;

/// Rebuilds the events of orders.
#[derive(Debug)]
pub struct Rebuilder {
    created: CreatedEvents,
    worker: StatusEvents,
    api: StatusEvents,
    topic: String,
}

impl Rebuilder {
    /// Prepares events for a topic (prefix included).
    pub fn new(config: &Config, topic: &str) -> Self {
        Self::of(config.event_key, topic.to_owned())
    }

    /// Prepares events of outbox rows: these have their topics and keys.
    pub fn of_rows() -> Self {
        Self::of(EventKey::default(), String::new())
    }

    fn of(key: EventKey, topic: String) -> Self {
        Self {
            created: CreatedEvents::new(topic.clone(), key),
            worker: StatusEvents::of(Role::Worker, key, String::new()),
            api: StatusEvents::of(Role::Api, key, String::new()),
            topic,
        }
    }

    /// Rebuilds the created event of an order.
    pub fn created(&self, origin: &Origin) -> anyhow::Result<NewEvent> {
        self.created_in(origin, trace(origin).as_ref())
    }

    fn created_in(&self, origin: &Origin, trace: Option<&TraceContext>) -> anyhow::Result<NewEvent> {
        let items: Vec<Item> = serde_json::from_str(&origin.order.items)?;
        Ok(self.created.event(&origin.order.head, origin.created_event_id, &items, trace))
    }

    /// Rebuilds an order's events in order: the created event, then the final one if it is known.
    pub fn events(&self, past: &PastOrder, ids: &dyn Ids) -> anyhow::Result<Vec<NewEvent>> {
        let mut events = vec![self.created(&past.origin)?];
        if let Some(end) = past.end.filter(|_| past.origin.order.status.is_final()) {
            let trace = trace(&past.origin).unwrap_or_else(|| TraceContext::new(ids));
            events.push(NewEvent { topic: self.topic.clone(), ..self.last(&past.origin, end, &trace) });
        }
        Ok(events)
    }

    fn last(&self, origin: &Origin, end: End, trace: &TraceContext) -> NewEvent {
        let order = &origin.order;
        let change = StatusChange { order: &order.head, version: order.version.saturating_sub(1), to: order.status };
        // Clients cancel through the API; the worker writes the other final events.
        let writer = if order.status == Status::Cancelled { &self.api } else { &self.worker };
        writer.event(change, end.event_id, &end.cause.to_string(), trace, end.at)
    }

    /// Adds value and headers to the brief ones among outbox rows. A row that is not of its order stays without headers.
    pub async fn complete(&self, outbox: &dyn Outbox, rows: &mut [OutboxRow]) -> Result<(), StoreError> {
        let is_brief = |row: &OutboxRow| row.event.brief.is_some() && !row.set_aside;
        let ids: BTreeSet<OrderId> = rows.iter().filter(|row| is_brief(row)).filter_map(|row| row.event.order_id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let past = outbox.past_orders(&ids.into_iter().collect::<Vec<_>>()).await?;
        let past: HashMap<OrderId, PastOrder> = past.into_iter().map(|past| (past.origin.order.head.order_id, past)).collect();
        for row in rows.iter_mut().filter(|row| is_brief(row)) {
            let order = row.event.order_id.and_then(|id| past.get(&id));
            if let Some(same) = order.and_then(|order| self.same(&row.event, order)) {
                (row.event.payload, row.event.headers) = (same.payload, same.headers);
            }
        }
        Ok(())
    }

    /// Rebuilds the event of a brief row; `None` if it is not an event of this order.
    fn same(&self, event: &NewEvent, past: &PastOrder) -> Option<NewEvent> {
        let of_row = event.brief.as_ref()?.trace.as_deref().and_then(TraceContext::from_text);
        if event.event_id == past.origin.created_event_id {
            return self.created_in(&past.origin, of_row.or_else(|| trace(&past.origin)).as_ref()).ok();
        }
        let end = past.end.filter(|end| end.event_id == event.event_id)?;
        Some(self.last(&past.origin, end, &of_row?))
    }
}

/// Returns the trace of the request that created an order.
fn trace(origin: &Origin) -> Option<TraceContext> {
    origin.traceparent.as_deref().and_then(|parent| TraceContext::parse(parent, None))
}
