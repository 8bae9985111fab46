//! Where writers of outbox rows report their commits.

use minishop_store::{OutboxRow, StoreError};

use crate::hints::Changes;
use crate::relay::Relay;

/// Reports commits to the relay, and changed orders to their watchers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Commits {
    relay: Relay,
    changes: Changes,
}

impl Commits {
    /// Joins the two.
    pub fn new(relay: Relay, changes: Changes) -> Self {
        Self { relay, changes }
    }

    /// Reports a successful commit; call it before answering anybody. Never blocks or fails.
    ///
    /// Never report a commit that failed or is in doubt: other rows may get its numbers. Call [`Commits::verify`] instead.
    pub fn report(&self, rows: Vec<OutboxRow>) {
        // Version 1 is a new order, which nobody can be watching yet.
        let changed = rows.iter().filter(|row| row.event.order_version > Some(1)).filter_map(|row| row.event.order_id);
        self.changes.committed(changed.collect());
        self.relay.hand_over(rows);
    }

    /// Reports a commit in doubt, or that a connection that writes outbox rows is lost; see [`Relay::verify`].
    pub fn verify(&self) {
        self.relay.verify();
    }

    /// Calls [`Commits::verify`] after an error that may mean a lost connection.
    pub fn doubt(&self, error: &StoreError) {
        if !matches!(error, StoreError::Fail { .. }) && !error.is_contended() {
            self.relay.verify();
        }
    }
}
