//! Decides what becomes of a claimed event, given what the store knows of its order.

use std::time::Duration;

use minishop_core::clock::Timestamp;
use minishop_core::order::Status;
use minishop_core::parking::{DeadCode, ErrorClass, error_fingerprint};
use minishop_core::timeline::NoteKind;
use minishop_platform::telemetry::propagation::TraceContext;
use minishop_store::{Failure, Gate, Release};

use super::claimed_event::{ClaimedEvent, Ended};
use super::decision::{Decision, LotOutcome, Row, handed_back};
use super::lot_store::LotStore;
use super::notes;
use crate::event::decode::{Content, CreatedEvent, Refused};
use crate::event::judge::Verdict;
use crate::event::known::{self, Known};
use crate::event::outgoing::Death;

/// The longest delay that a handler can ask for; a longer one is cut to this.
const LONGEST_REQUEST: Duration = Duration::from_mins(5);
/// The delay of an event that only a newer worker can read.
const UNREADABLE: Duration = Duration::from_mins(1);

/// What the transaction has read for its decisions.
#[derive(Debug)]
pub(super) struct Facts {
    pub now: Timestamp,
    pub gate: Gate,
    pub known: Known,
}

impl LotStore {
    /// Decides on an event: either its handler is called, or a final outcome is written.
    pub(super) fn decide(&self, claimed: &ClaimedEvent, facts: &mut Facts) -> Decision {
        if claimed.is_restored() && claimed.ended.is_none() && !facts.gate.fresh.contains(&claimed.event_id) {
            return if facts.gate.settled.get(&claimed.event_id).is_some_and(|settled| claimed.digest.is_of(settled)) {
                Decision::new(Row::Drain, LotOutcome::Copy)
            } else {
                let message = "another event was settled under this event id".to_owned();
                self.refuse(claimed, &Refused { code: DeadCode::DuplicateConflict, message, event_type: None }, facts.now)
            };
        }
        match &claimed.content {
            Content::Refused(refused) => self.refuse(claimed, refused, facts.now),
            Content::Newer { .. } => {
                Decision::new(Row::Release(handed_back(claimed.row.lease, UNREADABLE)), LotOutcome::HandedBack)
            }
            Content::Created(event) => self.decide_created(claimed, event, facts),
        }
    }

    fn decide_created(&self, claimed: &ClaimedEvent, event: &CreatedEvent, facts: &mut Facts) -> Decision {
        let mut decision = match claimed.judge(event, &facts.known) {
            Verdict::Refuse(code, message) => {
                return self.refuse(claimed, &Refused { code, message: message.to_owned(), event_type: None }, facts.now);
            }
            Verdict::Duplicate(of) => Decision { duplicate: Some(of), ..Decision::new(Row::Drain, LotOutcome::Duplicate) },
            Verdict::Ignore => self.too_late(claimed, event, facts),
            Verdict::Handle => self.handle(claimed, event, facts),
            Verdict::Adopt => {
                let order = known::adopted(claimed.event_id, event);
                facts.known.add(known::known_of(&order));
                let mut decision = self.handle(claimed, event, facts);
                decision.notes.insert(0, notes::note(claimed, event, facts.now, NoteKind::Adopted, None));
                decision.adopt = Some(order);
                decision
            }
        };
        if claimed.row.abandoned && claimed.ended.is_none() {
            decision.notes.insert(0, notes::abandoned(claimed, event, facts.now));
        }
        decision.identity = claimed.identity();
        decision
    }

    /// Decides on an event whose order is still as the event announced it.
    fn handle(&self, claimed: &ClaimedEvent, event: &CreatedEvent, facts: &Facts) -> Decision {
        let limit = self.config.retry_attempts;
        match &claimed.ended {
            None if claimed.row.attempts > limit => {
                let message =
                    if claimed.row.abandoned { notes::NO_END } else { "all attempts were used up before this worker claimed it" };
                let death = death(claimed, (ErrorClass::Crash, DeadCode::AttemptsExhausted), message, facts.now);
                let mut decision = self.give_up(claimed, Some(event), &Death { attempts: limit, ..death });
                if let Row::Release(release) = &mut decision.row {
                    release.uncounted = true;
                }
                decision
            }
            None => Decision::new(Row::Keep, LotOutcome::Called),
            Some((Ended::Done, _)) => self.processed(claimed, event, facts),
            Some((Ended::Failed { class, message, .. }, _)) if claimed.row.attempts >= limit => {
                self.give_up(claimed, Some(event), &death(claimed, (*class, DeadCode::AttemptsExhausted), message, facts.now))
            }
            Some((Ended::Failed { class, message, retry_after }, _)) => {
                self.retry(claimed, event, (*class, message), *retry_after, facts.now)
            }
            Some((Ended::Refused { message }, _)) => {
                let why = (ErrorClass::Permanent, DeadCode::WebhookRefused);
                self.give_up(claimed, Some(event), &death(claimed, why, message, facts.now))
            }
            Some((Ended::Paused { again_in }, _)) => {
                Decision::new(Row::Release(handed_back(claimed.row.lease, *again_in)), LotOutcome::HandedBack)
            }
        }
    }

    fn processed(&self, claimed: &ClaimedEvent, event: &CreatedEvent, facts: &Facts) -> Decision {
        let version = facts.known.by_id(event.head.order_id).map_or(event.sequence, |order| order.version);
        let trace = claimed.trace.clone().unwrap_or_else(|| TraceContext::new(self.ids.as_ref()));
        let mut decision = Decision::new(Row::Drain, LotOutcome::Processed);
        decision.transition = Some(self.events.processed(claimed.event_id, event, version, facts.now, &trace));
        decision.notes.push(notes::released(claimed, event, facts.now));
        decision
    }

    /// Decides on an event whose order changed before or during its handling.
    fn too_late(&self, claimed: &ClaimedEvent, event: &CreatedEvent, facts: &Facts) -> Decision {
        let cancelled = facts.known.by_id(event.head.order_id).is_some_and(|order| order.status == Status::Cancelled);
        let fulfilled = matches!(claimed.ended, Some((Ended::Done, _))) && self.handles_outside();
        if cancelled && fulfilled {
            let mut decision = Decision::new(Row::Drain, LotOutcome::Late);
            decision.notes.push(notes::late(claimed, event, facts.now));
            return decision;
        }
        let mut decision = Decision::new(Row::Drain, LotOutcome::Ignored);
        decision.notes.push(notes::note(claimed, event, facts.now, NoteKind::Ignored, None));
        decision
    }

    fn retry(
        &self,
        claimed: &ClaimedEvent,
        event: &CreatedEvent,
        (class, message): (ErrorClass, &str),
        asked: Option<Duration>,
        now: Timestamp,
    ) -> Decision {
        let attempt = u32::try_from(claimed.row.attempts).unwrap_or(1);
        let wait = self.config.retry.wait(attempt, self.ids.jitter());
        let wait = wait.max(asked.unwrap_or_default().min(LONGEST_REQUEST));
        let release = Release {
            lease: claimed.row.lease,
            again_in: Some(wait),
            uncounted: false,
            unblocks: false,
            failure: Some(failure(class, None, message, now)),
        };
        let mut decision = Decision::new(Row::Release(release), LotOutcome::Retried { again_in: wait });
        decision.notes.push(notes::attempt(claimed, event, now, (class, message), wait));
        decision
    }

    /// Gives up a record that is not a valid event, or that claims the identity of another one. Later events of its key do not wait.
    fn refuse(&self, claimed: &ClaimedEvent, refused: &Refused, now: Timestamp) -> Decision {
        let mut decision =
            self.give_up(claimed, None, &death(claimed, (ErrorClass::Refused, refused.code), &refused.message, now));
        if let Row::Release(release) = &mut decision.row {
            release.unblocks = true;
        }
        decision
    }

    /// Gives up an event and builds its dead letter. `event` is `Some` if it is its order's own event; the timeline notes only that.
    fn give_up(&self, claimed: &ClaimedEvent, event: Option<&CreatedEvent>, death: &Death<'_>) -> Decision {
        let release = Release {
            lease: claimed.row.lease,
            again_in: None,
            uncounted: false,
            unblocks: false,
            failure: Some(failure(death.class, Some(death.code), death.message, death.last_failed)),
        };
        let mut decision = Decision::new(Row::Release(release), LotOutcome::Dead(death.class, death.code));
        decision.letter = Some(self.events.dead_letter(claimed.row.event_id, &claimed.record, death));
        decision.notes.extend(event.map(|event| notes::dead(claimed, event, death)));
        decision
    }
}

fn death<'a>(claimed: &ClaimedEvent, (class, code): (ErrorClass, DeadCode), message: &'a str, now: Timestamp) -> Death<'a> {
    Death {
        class,
        code,
        message,
        attempts: claimed.row.attempts,
        redrives: claimed.row.redrives,
        first_failed: claimed.row.first_failed_at.unwrap_or(now),
        last_failed: now,
        known_since: claimed.row.parked_at,
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
