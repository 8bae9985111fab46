//! A claimed row on its way through the lot: what it says, and what handling came to.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use minishop_core::ids::EventId;
use minishop_core::order::Status;
use minishop_core::parking::{DeadCode, ErrorClass};
use minishop_platform::bus::{Headers, Record};
use minishop_platform::store::{Claimed, Identity};
use minishop_platform::telemetry::propagation::TraceContext;

use crate::decode::{Content, Created, EventDigest, Incoming, Refused, decode, id_of_record};
use crate::judge::{Verdict, judge};
use crate::process::known::Known;
use crate::upcast::Versions;

/// A claimed row.
#[derive(Debug)]
pub(super) struct ClaimedEvent {
    pub row: Claimed,
    /// The record as it was read once.
    pub record: Record,
    /// The event's own id, which is not the row's if the record was refused when it came.
    pub event_id: EventId,
    pub digest: EventDigest,
    /// What it says, read anew: the row may be older than this worker's decoder.
    pub content: Content,
    /// The trace that the call went on with.
    pub trace: Option<TraceContext>,
    /// What handling came to, and how long it took; `None` before.
    pub ended: Option<(Ended, Duration)>,
    /// Whether what it came to may be on disk already: then its lease is gone for that.
    pub in_doubt: bool,
}

/// What handling came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    Done,
    Failed {
        class: ErrorClass,
        message: String,
        retry_after: Option<Duration>,
    },
    Refused {
        message: String,
    },
    /// Nothing was tried, and nothing should be for so long.
    Paused {
        again_in: Duration,
    },
}

impl ClaimedEvent {
    /// Reads a row. A decoder that panics refuses it: the row stays, and reads well once the decoder is fixed.
    pub fn read(row: Claimed, versions: &Versions) -> Self {
        let record = Record {
            topic: row.topic.as_str().into(),
            partition: row.partition,
            offset: row.offset,
            key: row.raw_key.clone(),
            value: row.raw_value.clone(),
            headers: Headers::decode(row.raw_headers.clone()).unwrap_or_default(),
            timestamp: row.parked_at.timestamp_millis(),
        };
        let said = catch_unwind(AssertUnwindSafe(|| {
            let Incoming { event_id, digest, content, .. } = decode(&record, versions);
            (event_id, digest, content)
        }));
        let (event_id, digest, content) = said.unwrap_or_else(|_| {
            let message = "the decoder panicked".to_owned();
            let refused = Refused { code: DeadCode::DataInvalid, message, event_type: None };
            (id_of_record(&record), EventDigest([0; 32]), Content::Refused(refused))
        });
        Self { row, record, event_id, digest, content, trace: None, ended: None, in_doubt: false }
    }

    pub fn created(&self) -> Option<&Created> {
        if let Content::Created(created) = &self.content { Some(created) } else { None }
    }

    /// Tells whether it was refused when it came and reads well now: it has not passed the gate under its own id.
    pub fn is_restored(&self) -> bool {
        self.created().is_some() && self.event_id != self.row.event_id
    }

    /// Tells whether it was judged when it was set aside. One that could not be read then was not.
    fn is_judged(&self) -> bool {
        !self.is_restored() && self.row.order_id.is_some()
    }

    /// Judges it by what the store knows now. Once judged, only the order's status counts: an adopted order begins with the
    /// event that brought it, whatever number that event bears.
    pub fn judge(&self, event: &Created, known: &Known) -> Verdict {
        let by_id = known.by_id(event.order_id);
        match by_id {
            Some(order) if self.is_judged() && order.status == Status::Created => Verdict::Handle,
            Some(_) if self.is_judged() => Verdict::Ignore,
            _ => judge(self.event_id, event, by_id, known.by_key(&event.client_id, &event.key)),
        }
    }

    /// Says what the row turned out to be, if that is not what stands in it.
    pub fn identity(&self) -> Option<Identity> {
        let created = self.created().filter(|_| !self.is_judged())?;
        Some(Identity {
            lease: self.row.lease,
            event_id: self.event_id,
            order_id: created.order_id,
            client_id: created.client_id.clone(),
            event_type: created.event_type.clone(),
        })
    }
}
