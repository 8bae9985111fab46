//! What is written of a case: its row's fate, and what goes with it.

use std::time::Duration;

use minishop_core::ids::OrderId;
use minishop_core::parking::{DeadCode, ErrorClass};
use minishop_platform::store::{AdoptedOrder, Identity, Lease, NewEvent, Note, Release, Transition};

/// What becomes of a row.
#[derive(Debug)]
pub(super) enum Row {
    /// It stays leased, for the call.
    Keep,
    /// It leaves the lot.
    Drain,
    /// It stays in the lot.
    Release(Release),
}

/// Everything that is written of a case, in one transaction; nothing of it if the lease was lost.
#[derive(Debug)]
pub(super) struct Decision {
    pub row: Row,
    pub outcome: LotOutcome,
    pub identity: Option<Identity>,
    pub adopt: Option<AdoptedOrder>,
    pub transition: Option<Transition>,
    /// The order that the event doubles.
    pub duplicate: Option<OrderId>,
    pub letter: Option<NewEvent>,
    pub notes: Vec<Note>,
}

/// What it came to, for the log and the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LotOutcome {
    /// The handler is called next.
    Called,
    /// Its order is processed.
    Processed,
    /// Its order had changed before it could be handled: a recorded no-op.
    Ignored,
    /// Its order was cancelled while it was handled.
    Late,
    /// Another event announced the same order.
    Duplicate,
    /// The same event was settled meanwhile.
    Copy,
    /// It is tried again.
    Retried { again_in: Duration },
    /// Nothing was tried.
    HandedBack,
    /// It is given up.
    Dead(ErrorClass, DeadCode),
}

impl Decision {
    pub fn new(row: Row, outcome: LotOutcome) -> Self {
        Self { row, outcome, identity: None, adopt: None, transition: None, duplicate: None, letter: None, notes: Vec::new() }
    }

    /// The right to the row once its identity is written: a lease names the event that stands there.
    pub fn lease_after(&self, lease: Lease) -> Lease {
        self.identity.as_ref().map_or(lease, |identity| Lease { event_id: identity.event_id, ..lease })
    }
}

/// Gives a row back as if it had not been taken up.
pub(super) fn handed_back(lease: Lease, again_in: Duration) -> Release {
    Release { lease, again_in: Some(again_in), uncounted: true, unblocks: false, failure: None }
}
