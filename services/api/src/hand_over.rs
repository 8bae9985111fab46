//! How the API's writers report their commits to the relay.

use std::sync::Arc;

use minishop_platform::relay::Relay;
use minishop_store::OutboxRow;

/// A commit, as reported to the relay.
#[derive(Debug)]
pub enum Committed {
    /// These rows are committed: the database confirmed it.
    Rows(Vec<OutboxRow>),
    /// A connection was lost: rows may be committed under unknown numbers.
    InDoubt,
}

/// Reports a commit to the relay.
pub type HandOver = Arc<dyn Fn(Committed) + Send + Sync>;

/// Returns the callback that passes commits to `relay`.
pub fn to_relay(relay: Relay) -> HandOver {
    Arc::new(move |committed| match committed {
        Committed::Rows(rows) => relay.hand_over(rows),
        Committed::InDoubt => relay.verify(),
    })
}
