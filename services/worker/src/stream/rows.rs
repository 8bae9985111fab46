//! Conversions of records into store rows.

use std::collections::{HashMap, HashSet};

use minishop_core::clock::Timestamp;
use minishop_core::ids::{EventId, OrderId};
use minishop_core::parking::{ErrorClass, State, error_fingerprint};
use minishop_core::position::Position;
use minishop_store::{InboxEntry, ParkedEvent};

use crate::event::decode::{Content, Incoming, Refused, id_of_record};

impl Incoming<'_> {
    /// Returns whether this is an event of this topic, of any version.
    pub(super) fn is_event(&self) -> bool {
        !matches!(self.content, Content::Refused(_))
    }

    /// Returns the order of an event that only a newer worker can read.
    pub(super) fn held_order(&self) -> Option<OrderId> {
        if let Content::Newer { order_id, .. } = &self.content { *order_id } else { None }
    }
}

/// Counts the records before the first one whose event or order is already in the batch: a statement changes an order only once.
pub(super) fn batch_length(rest: &[Incoming<'_>]) -> usize {
    let (mut events, mut orders) = (HashSet::new(), HashSet::new());
    rest.iter()
        .take_while(|incoming| {
            let order_is_new = incoming.created().is_none_or(|created| orders.insert(created.head.order_id));
            order_is_new && events.insert(incoming.event_id)
        })
        .count()
}

/// Returns the positions after a batch.
pub(super) fn positions(batch: &[Incoming<'_>]) -> Vec<Position> {
    let mut next: HashMap<(&str, i32), i64> = HashMap::new();
    for incoming in batch {
        let at = next.entry((&incoming.record.topic, incoming.record.partition)).or_default();
        *at = (*at).max(incoming.record.offset + 1);
    }
    let mut list: Vec<_> = next
        .into_iter()
        .map(|((topic, partition), next_offset)| Position { topic: topic.to_owned(), partition, next_offset })
        .collect();
    // All workers write in the same order, so that two of them cannot deadlock.
    list.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    list
}

/// Returns the id under which a record is settled: the event's, or one of its own if it is refused.
pub(super) fn settled_id(incoming: &Incoming<'_>, refused: bool) -> EventId {
    if refused { id_of_record(incoming.record) } else { incoming.event_id }
}

pub(super) fn entry(event_id: EventId, incoming: &Incoming<'_>) -> InboxEntry {
    InboxEntry { event_id, data_sha: incoming.digest.0, order_id: incoming.created().map(|created| created.head.order_id) }
}

/// Builds the row of an event that waits behind another one of its key.
pub(super) fn waiting(incoming: &Incoming<'_>, event_type: &str) -> ParkedEvent {
    let created = incoming.created();
    ParkedEvent {
        record_key: incoming.key.clone(),
        blocks: true,
        state: State::Waiting,
        event_id: incoming.event_id,
        order_id: created.map(|c| c.head.order_id),
        client_id: created.map(|c| c.head.client_id.clone()),
        event_type: Some(event_type.to_owned()),
        needs_type: None,
        topic: incoming.record.topic.to_string(),
        partition: incoming.record.partition,
        offset: incoming.record.offset,
        raw_key: incoming.record.key.clone(),
        raw_value: incoming.record.value.clone(),
        raw_headers: incoming.record.headers.encode(),
        error_class: None,
        error_code: None,
        error_message: None,
        error_fingerprint: None,
        failed_at: None,
    }
}

/// Builds the row of an event that is due for the handler.
pub(super) fn due(incoming: &Incoming<'_>, event_type: &str) -> ParkedEvent {
    ParkedEvent { state: State::Retrying, ..waiting(incoming, event_type) }
}

/// Builds the row of an event that is held for a newer worker.
pub(super) fn held(incoming: &Incoming<'_>, event_type: &str) -> ParkedEvent {
    ParkedEvent {
        needs_type: Some(event_type.to_owned()),
        error_class: Some(ErrorClass::Held.as_str()),
        ..waiting(incoming, event_type)
    }
}

/// Builds the row of a refused record. It blocks nothing: it has no order to keep.
pub(super) fn dead(id: EventId, incoming: &Incoming<'_>, refused: &Refused, now: Timestamp) -> ParkedEvent {
    ParkedEvent {
        blocks: false,
        state: State::Dead,
        event_id: id,
        event_type: refused.event_type.clone(),
        error_class: Some(ErrorClass::Refused.as_str()),
        error_code: Some(refused.code.as_str()),
        error_message: Some(refused.message.clone()),
        error_fingerprint: Some(error_fingerprint(ErrorClass::Refused, refused.code.as_str(), &refused.message)),
        failed_at: Some(now),
        // Its client was not verified.
        client_id: None,
        ..waiting(incoming, "")
    }
}
