//! Decides what becomes of a claimed event, given what the store knows of its order.

use std::time::Duration;

use minishop_core::clock::Timestamp;
use minishop_core::order::Status;
use minishop_core::parking::{DeadCode, ErrorClass, error_fingerprint};
use minishop_platform::telemetry::propagation::TraceContext;
use minishop_store::{Failure, Gate, Release};

use super::claimed_event::{ClaimedEvent, Ended};
use super::decision::{Decision, LotOutcome, Row, handed_back};
use super::lot_store::LotStore;
use super::notes;
use crate::event::decode::{Content, Created, Refused};
use crate::event::judge::Verdict;
use crate::event::known::{self, Known};
use crate::event::outgoing::Death;

/// The longest delay that a handler can ask for.
const LONGEST_REQUEST: Duration = Duration::from_mins(5);
/// The delay of an event that only a newer worker can read.
const UNREADABLE: Duration = Duration::from_mins(1);

/// What is known when events are decided.
#[derive(Debug)]
pub(super) struct Facts {
    pub now: Timestamp,
    pub gate: Gate,
    pub known: Known,
}

impl LotStore {
    /// Decides on an event: whether its handler is called or, if not, what is written.
    pub(super) fn decide(&self, case: &ClaimedEvent, facts: &mut Facts) -> Decision {
        if case.is_restored() && case.ended.is_none() && !facts.gate.fresh.contains(&case.event_id) {
            return if facts.gate.settled.get(&case.event_id).is_some_and(|settled| case.digest.is_of(settled)) {
                Decision::new(Row::Drain, LotOutcome::Copy)
            } else {
                let message = "another event was settled under this event id".to_owned();
                self.refuse(case, &Refused { code: DeadCode::DuplicateConflict, message, event_type: None }, facts.now)
            };
        }
        match &case.content {
            Content::Refused(refused) => self.refuse(case, refused, facts.now),
            Content::Newer { .. } => Decision::new(Row::Release(handed_back(case.row.lease, UNREADABLE)), LotOutcome::HandedBack),
            Content::Created(event) => self.decide_created(case, event, facts),
        }
    }

    fn decide_created(&self, case: &ClaimedEvent, event: &Created, facts: &mut Facts) -> Decision {
        let mut change = match case.judge(event, &facts.known) {
            Verdict::Refuse(code, message) => {
                return self.refuse(case, &Refused { code, message: message.to_owned(), event_type: None }, facts.now);
            }
            Verdict::Duplicate(of) => Decision { duplicate: Some(of), ..Decision::new(Row::Drain, LotOutcome::Duplicate) },
            Verdict::Ignore => self.too_late(case, event, facts),
            Verdict::Handle => self.handle(case, event, facts),
            Verdict::Adopt => {
                let order = known::adopted(case.event_id, event);
                facts.known.add(known::known_of(&order));
                let mut change = self.handle(case, event, facts);
                change.notes.insert(0, notes::note(case, event, facts.now, "adopted", None));
                change.adopt = Some(order);
                change
            }
        };
        if case.row.abandoned && case.ended.is_none() {
            change.notes.insert(0, notes::abandoned(case, event, facts.now));
        }
        change.identity = case.identity();
        change
    }

    /// Decides on an event that its order awaits.
    fn handle(&self, case: &ClaimedEvent, event: &Created, facts: &Facts) -> Decision {
        let limit = self.config.retry_attempts;
        match &case.ended {
            None if case.row.attempts > limit => {
                let message =
                    if case.row.abandoned { notes::NO_END } else { "all attempts were used up before this worker claimed it" };
                let death = death(case, (ErrorClass::Crash, DeadCode::AttemptsExhausted), message, facts.now);
                let mut change = self.give_up(case, Some(event), &Death { attempts: limit, ..death });
                if let Row::Release(release) = &mut change.row {
                    release.uncounted = true;
                }
                change
            }
            None => Decision::new(Row::Keep, LotOutcome::Called),
            Some((Ended::Done, _)) => self.processed(case, event, facts),
            Some((Ended::Failed { class, message, .. }, _)) if case.row.attempts >= limit => {
                self.give_up(case, Some(event), &death(case, (*class, DeadCode::AttemptsExhausted), message, facts.now))
            }
            Some((Ended::Failed { class, message, retry_after }, _)) => {
                self.retry(case, event, (*class, message), *retry_after, facts.now)
            }
            Some((Ended::Refused { message }, _)) => {
                let why = (ErrorClass::Permanent, DeadCode::WebhookRefused);
                self.give_up(case, Some(event), &death(case, why, message, facts.now))
            }
            Some((Ended::Paused { again_in }, _)) => {
                Decision::new(Row::Release(handed_back(case.row.lease, *again_in)), LotOutcome::HandedBack)
            }
        }
    }

    fn processed(&self, case: &ClaimedEvent, event: &Created, facts: &Facts) -> Decision {
        let version = facts.known.by_id(event.head.order_id).map_or(event.sequence, |order| order.version);
        let trace = case.trace.clone().unwrap_or_else(|| TraceContext::new(self.ids.as_ref()));
        let mut change = Decision::new(Row::Drain, LotOutcome::Processed);
        change.transition = Some(self.events.processed(case.event_id, event, version, facts.now, &trace));
        change.notes.push(notes::released(case, event, facts.now));
        change
    }

    /// Decides on an event whose order changed before or during its handling.
    fn too_late(&self, case: &ClaimedEvent, event: &Created, facts: &Facts) -> Decision {
        let cancelled = facts.known.by_id(event.head.order_id).is_some_and(|order| order.status == Status::Cancelled);
        let fulfilled = matches!(case.ended, Some((Ended::Done, _))) && self.handles_outside();
        if cancelled && fulfilled {
            let mut change = Decision::new(Row::Drain, LotOutcome::Late);
            change.notes.push(notes::late(case, event, facts.now));
            return change;
        }
        let mut change = Decision::new(Row::Drain, LotOutcome::Ignored);
        change.notes.push(notes::note(case, event, facts.now, "ignored", None));
        change
    }

    fn retry(
        &self,
        case: &ClaimedEvent,
        event: &Created,
        (class, message): (ErrorClass, &str),
        asked: Option<Duration>,
        now: Timestamp,
    ) -> Decision {
        let attempt = u32::try_from(case.row.attempts).unwrap_or(1);
        let wait = self.config.retry.wait(attempt, self.ids.jitter());
        let wait = wait.max(asked.unwrap_or_default().min(LONGEST_REQUEST));
        let release = Release {
            lease: case.row.lease,
            again_in: Some(wait),
            uncounted: false,
            unblocks: false,
            failure: Some(failure(class, None, message, now)),
        };
        let mut change = Decision::new(Row::Release(release), LotOutcome::Retried { again_in: wait });
        change.notes.push(notes::attempt(case, event, now, (class, message), wait));
        change
    }

    /// Gives up a record that is not a valid event, or claims another one's identity. Its key need not wait for it.
    fn refuse(&self, case: &ClaimedEvent, refused: &Refused, now: Timestamp) -> Decision {
        let mut change = self.give_up(case, None, &death(case, (ErrorClass::Refused, refused.code), &refused.message, now));
        if let Row::Release(release) = &mut change.row {
            release.unblocks = true;
        }
        change
    }

    /// Gives an event up, with its dead letter; `event` is set, and noted in the timeline, if it is known to be its order's.
    fn give_up(&self, case: &ClaimedEvent, event: Option<&Created>, death: &Death<'_>) -> Decision {
        let release = Release {
            lease: case.row.lease,
            again_in: None,
            uncounted: false,
            unblocks: false,
            failure: Some(failure(death.class, Some(death.code), death.message, death.last_failed)),
        };
        let mut change = Decision::new(Row::Release(release), LotOutcome::Dead(death.class, death.code));
        change.letter = Some(self.events.dead_letter(case.row.event_id, &case.record, death));
        change.notes.extend(event.map(|event| notes::dead(case, event, death)));
        change
    }
}

fn death<'a>(case: &ClaimedEvent, (class, code): (ErrorClass, DeadCode), message: &'a str, now: Timestamp) -> Death<'a> {
    Death {
        class,
        code,
        message,
        attempts: case.row.attempts,
        redrives: case.row.redrives,
        first_failed: case.row.first_failed_at.unwrap_or(now),
        last_failed: now,
        known_since: case.row.parked_at,
    }
}

fn failure(class: ErrorClass, code: Option<DeadCode>, message: &str, at: Timestamp) -> Failure {
    let code = code.map(DeadCode::as_str);
    Failure {
        class: class.as_str(),
        code,
        message: message.to_owned(),
        fingerprint: error_fingerprint(class, code.unwrap_or_default(), message),
        at,
    }
}
