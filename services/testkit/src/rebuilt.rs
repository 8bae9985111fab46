//! The outbox as it would be published.

use minishop_platform::events::rebuild::Rebuilder;
use minishop_store::{OutboxRow, Store};

/// Reads the whole outbox, with value and headers of brief rows.
pub async fn outbox(store: &Store) -> Vec<OutboxRow> {
    let mut rows = crate::rows::outbox(store).await;
    Rebuilder::of_rows().complete(store.outbox.as_ref(), &mut rows).await.unwrap();
    rows
}
