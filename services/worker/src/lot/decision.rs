//! The decision on a claimed event, as it is written.

use std::time::Duration;

use minishop_core::ids::OrderId;
use minishop_core::parking::{DeadCode, ErrorClass};
use minishop_store::{AdoptedOrder, Identity, Lease, NewEvent, Note, Release, Transition};

/// What becomes of the row.
#[derive(Debug)]
pub(super) enum Row {
    /// It stays leased, for the call.
    Keep,
    /// It leaves the lot.
    Drain,
    /// It stays in the lot.
    Release(Release),
}

/// All writes for an event, in one transaction; none of them if the lease was lost.
#[derive(Debug)]
pub(super) struct Decision {
    pub row: Row,
    pub outcome: LotOutcome,
    pub identity: Option<Identity>,
    pub adopt: Option<AdoptedOrder>,
    pub transition: Option<Transition>,
    /// The order that another event announced first.
    pub duplicate: Option<OrderId>,
    pub letter: Option<NewEvent>,
    pub notes: Vec<Note>,
}

/// The outcome, for logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LotOutcome {
    /// The handler is called next.
    Called,
    Processed,
    /// Its order changed before it could be handled: a recorded no-op.
    Ignored,
    /// Its order was cancelled while it was handled.
    Late,
    /// Another event announced the same order.
    Duplicate,
    /// The same event was settled meanwhile.
    Copy,
    Retried {
        again_in: Duration,
    },
    /// No attempt was used up.
    HandedBack,
    /// It is a dead letter.
    Dead(ErrorClass, DeadCode),
}

impl Decision {
    pub fn new(row: Row, outcome: LotOutcome) -> Self {
        Self { row, outcome, identity: None, adopt: None, transition: None, duplicate: None, letter: None, notes: Vec::new() }
    }

    /// Returns the lease once `identity` is written: a lease names the event of its row.
    pub fn lease_after(&self, lease: Lease) -> Lease {
        self.identity.as_ref().map_or(lease, |identity| Lease { event_id: identity.event_id, ..lease })
    }
}

/// Gives a row back without counting the attempt.
pub(super) fn handed_back(lease: Lease, again_in: Duration) -> Release {
    Release { lease, again_in: Some(again_in), uncounted: true, unblocks: false, failure: None }
}
