//! Dead letters that were produced to the topic again, by hand or with a tool that copies records.
//!
//! They are recognized by what this store has done, not by what they claim: their headers name the place of the record that died,
//! and that place with the record's own bytes yields the id under which that record was settled. The id depends on place and
//! bytes, so naming a place where other bytes were refused matches nothing, and only records that would be refused again are
//! checked: no header stops a good event.

use std::collections::{HashMap, HashSet};

use minishop_bus::Record;
use minishop_contracts::headers::kafka as names;
use minishop_core::ids::EventId;
use minishop_store::{ConsumerTx, StoreError};

use super::plan::Refusals;
use super::rows;
use crate::event::decode::{Incoming, id_of_record};

/// Returns where the original of a dead letter was, according to its headers: topic, partition, offset.
pub(super) fn named_place(record: &Record) -> Option<(&str, i32, i64)> {
    // The last header of a name counts: a record that became a dead letter twice has two sets of these headers.
    let last = |wanted: &str| record.headers.0.iter().rev().find(|(name, _)| name == wanted)?.1.as_deref();
    let text = |wanted: &str| std::str::from_utf8(last(wanted)?).ok();
    let number = |wanted: &str| text(wanted)?.parse::<i64>().ok();
    let partition = i32::try_from(number(names::DLQ_PARTITION)?).ok()?;
    Some((text(names::DLQ_TOPIC)?, partition, number(names::DLQ_OFFSET)?))
}

/// Finds the records of a batch that were refused before, at the place that they name, and are dead letters already.
pub(super) async fn find(
    tx: &mut dyn ConsumerTx,
    batch: &[Incoming<'_>],
    refusals: &Refusals,
) -> Result<HashSet<usize>, StoreError> {
    let refused = batch.iter().enumerate().filter(|(n, incoming)| refusals.contains_key(n) || !incoming.is_event());
    let refused: Vec<_> = refused.map(|(n, incoming)| (n, incoming, original(incoming))).collect();
    let asked: Vec<EventId> = refused.iter().filter_map(|(.., original)| *original).collect();
    if asked.is_empty() {
        return Ok(HashSet::new());
    }
    let settled = tx.known_digests(&asked).await?;
    // After a restore the original and its copy may come in one batch.
    let mut before = HashMap::new();
    let mut found = HashSet::new();
    for (n, incoming, original) in refused {
        let first = original.and_then(|id| settled.get(&id).or_else(|| before.get(&id)));
        if first.is_some_and(|settled| incoming.digest.is_of(settled)) {
            found.insert(n);
        } else {
            before.insert(rows::settled_id(incoming, true), incoming.digest.0);
        }
    }
    Ok(found)
}

/// Returns the id under which a record was settled at the place that it names.
fn original(incoming: &Incoming<'_>) -> Option<EventId> {
    let (topic, partition, offset) = named_place(incoming.record)?;
    let id = EventId::of_record(topic, partition, offset, incoming.record.value.as_deref().unwrap_or_default());
    // A record that names its own place would count as its own copy when it is read again: true, but not worth a log line.
    (id != id_of_record(incoming.record)).then_some(id)
}
