//! The end of a consumer transaction, the same for a batch of the stream and for claimed events of the lot: adoptions, the fence,
//! the journal, the commit.

use std::collections::HashSet;

use minishop_core::crash;
use minishop_core::ids::OrderId;
use minishop_store::{AdoptedOrder, ConsumerTx, Journal, OutboxRow, StoreError, Transition};

/// Adopts orders and applies transitions; returns the orders that passed the fence.
pub(crate) async fn change_orders(
    tx: &mut dyn ConsumerTx,
    adopt: &[AdoptedOrder],
    transitions: &[Transition],
) -> Result<HashSet<OrderId>, StoreError> {
    if !adopt.is_empty() && tx.adopt(adopt).await?.len() < adopt.len() {
        return Err(changed("worker.adopt"));
    }
    if transitions.is_empty() { Ok(HashSet::new()) } else { tx.apply(transitions).await }
}

/// Writes the journal and commits; takes its events out and returns them as outbox rows to hand over.
pub(crate) async fn commit(mut tx: Box<dyn ConsumerTx>, journal: &mut Journal) -> Result<Vec<OutboxRow>, StoreError> {
    let parks = !journal.parked.is_empty();
    let numbers = tx.record(journal).await?;
    if parks {
        crash::point("park_before_commit");
    }
    tx.commit().await?;
    if parks {
        crash::point("park_after_commit_before_offset");
    }
    let events = std::mem::take(&mut journal.events);
    Ok(numbers.into_iter().zip(events).map(|(number, event)| OutboxRow::new(number, event)).collect())
}

/// Returns the error for data that another transaction has changed since it was read: the next try sees the change.
pub(crate) fn changed(operation: &'static str) -> StoreError {
    StoreError::retry(operation, anyhow::anyhow!("an order or a row has changed since it was read"))
}
