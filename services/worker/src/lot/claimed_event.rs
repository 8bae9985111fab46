//! A claimed event on its way through the lot: its content, and the outcome of handling.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use minishop_bus::{Headers, Record};
use minishop_core::ids::EventId;
use minishop_core::order::Status;
use minishop_core::parking::{DeadCode, ErrorClass};
use minishop_platform::telemetry::propagation::TraceContext;
use minishop_store::{Claimed, Identity};

use crate::event::decode::{Content, CreatedEvent, EventDigest, Incoming, Refused, decode, id_of_record};
use crate::event::judge::{Verdict, judge};
use crate::event::known::Known;
use crate::event::upcast::Versions;

/// A leased row, decoded.
#[derive(Debug)]
pub(super) struct ClaimedEvent {
    pub row: Claimed,
    pub record: Record,
    /// The event's own id, which differs from the row's if the record was refused at first.
    pub event_id: EventId,
    pub digest: EventDigest,
    /// Decoded again: the row may be older than this worker's decoder.
    pub content: Content,
    /// The trace of the call.
    pub trace: Option<TraceContext>,
    /// The outcome of the call, and how long it took; `None` before it.
    pub ended: Option<(Ended, Duration)>,
    /// Whether the outcome may be committed already; if so, that has ended the lease.
    pub in_doubt: bool,
}

/// The outcome of a call.
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
    /// No attempt is used up; due again in `again_in`.
    Paused {
        again_in: Duration,
    },
}

impl ClaimedEvent {
    /// Decodes a row. If the decoder panics, the event is refused: the row stays, and decodes once the decoder is fixed.
    pub fn read(row: Claimed, versions: &Versions) -> Self {
        let record = Record {
            topic: row.topic.as_str().into(),
            partition: row.partition,
            offset: row.offset,
            key: row.raw_key.clone(),
            value: row.raw_value.clone(),
            headers: Headers::decode(&row.raw_headers).unwrap_or_default(),
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

    pub fn created(&self) -> Option<&CreatedEvent> {
        if let Content::Created(created) = &self.content { Some(created) } else { None }
    }

    /// Returns whether it was refused at first and decodes now: it has not passed the gate under its own id.
    pub fn is_restored(&self) -> bool {
        self.created().is_some() && self.event_id != self.row.event_id
    }

    /// Returns whether it was judged when it was parked; one that did not decode then was not.
    fn is_judged(&self) -> bool {
        !self.is_restored() && self.row.order_id.is_some()
    }

    /// Judges it by what the store knows now. Once judged, only the order's status counts: an adopted order starts at version 1,
    /// whatever sequence its event bears.
    pub fn judge(&self, event: &CreatedEvent, known: &Known) -> Verdict {
        let by_id = known.by_id(event.head.order_id);
        match by_id {
            Some(order) if self.is_judged() && order.status == Status::Created => Verdict::Handle,
            Some(_) if self.is_judged() => Verdict::Ignore,
            _ => judge(self.event_id, event, by_id, known.by_key(&event.head.client_id, &event.head.key)),
        }
    }

    /// Returns what the row turned out to be, if it was not judged when it was parked.
    pub fn identity(&self) -> Option<Identity> {
        let created = self.created().filter(|_| !self.is_judged())?;
        Some(Identity {
            lease: self.row.lease,
            event_id: self.event_id,
            order_id: created.head.order_id,
            client_id: created.head.client_id.clone(),
            event_type: created.event_type.clone(),
        })
    }
}
