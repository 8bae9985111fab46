//! Pauses the calls of an endpoint during an outage, so that the outage uses up no attempts.
//!
//! An outage shows in the share of the latest calls that failed: random failures are not an outage, nor are the orders of one
//! customer that always fail. Then calls pause, and a few probes over several keys test the endpoint until most of them succeed.
//! A failure meanwhile uses up no attempt, unless the endpoint has answered other probes well: then the order is at fault.

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

/// An outage begins when `FAILED` of the latest `CALLS` calls, none older than `RECENT`, have failed. With three in ten failing
/// at random, one window in 60,000 looks like an outage.
const CALLS: usize = 12;
const RECENT: Duration = Duration::from_mins(1);
const FAILED: usize = 11;
/// The failures must be of at least this many record keys.
const KEYS: usize = 3;
/// The first pause; each further one is twice as long, up to `LONGEST`.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// The most probes at a time; `MOST` equal results decide.
const PROBES: usize = 5;
const MOST: usize = PROBES / 2 + 1;
/// After this time a round whose probes have ended is decided with fewer than `MOST` results: because events of fewer than
/// `PROBES` keys may be waiting.
const ROUND: Duration = Duration::from_secs(1);
/// If fewer than [`KEYS`] keys failed their probes in this time, their orders are at fault, not the endpoint: the outage ends.
const IN_VAIN: Duration = Duration::from_mins(15);

/// Detects outages.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    latest: VecDeque<Ended>,
    outage: Option<OutageState>,
    rounds: u64,
}

/// An ended call.
#[derive(Debug)]
struct Ended {
    key: Bytes,
    failed: bool,
    at: Instant,
}

/// A current outage.
#[derive(Debug)]
struct OutageState {
    since: Instant,
    why: String,
    /// When probes may start.
    probe_at: Instant,
    /// The pause after the next round.
    wait: Duration,
    round: Option<Round>,
    /// Whether a probe has succeeded since.
    answered: bool,
    /// The keys whose probes failed within `IN_VAIN`, and when they did last.
    in_vain: HashMap<Bytes, Instant>,
}

/// A round of probes.
#[derive(Debug)]
struct Round {
    number: u64,
    began: Instant,
    running: usize,
    /// The last result of each key: whether its call succeeded.
    words: HashMap<Bytes, bool>,
}

/// A snapshot of an outage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BreakerOutage {
    pub since: Instant,
    /// The failures that began it, then the last probe's error.
    pub why: String,
    /// When the next probes may start; has passed while they run.
    pub probe_at: Instant,
}

/// The right to one call; for a probe, the number of its round.
pub(super) type Ticket = Option<u64>;

impl Breaker {
    /// Admits a call; `None` while calls pause, or while enough probes run.
    fn admit(&mut self, now: Instant) -> Option<Ticket> {
        self.settle(now);
        let Some(outage) = &mut self.outage else { return Some(None) };
        if now < outage.probe_at {
            return None;
        }
        let round = outage.round.get_or_insert_with(|| {
            self.rounds += 1;
            Round { number: self.rounds, began: now, running: 0, words: HashMap::new() }
        });
        if round.running >= PROBES {
            return None;
        }
        round.running += 1;
        Some(Some(round.number))
    }

    /// Takes back the right to a call that ended without a result.
    fn give_back(&mut self, ticket: Ticket) {
        if let Some(round) = self.round(ticket) {
            round.running -= 1;
        }
    }

    /// Notes the result of a call, with the reason if it failed; a refusal is an answer, not a failure. Returns whether a failure
    /// counts as an attempt.
    fn note(&mut self, ticket: Ticket, key: &Bytes, failed: Option<&str>, now: Instant) -> bool {
        if self.outage.is_none() {
            self.note_usual(key, failed, now);
            return true;
        }
        if let Some(round) = self.round(ticket) {
            round.running -= 1;
            round.words.insert(key.clone(), failed.is_none());
        }
        let Some(outage) = &mut self.outage else { return true };
        match failed {
            // A call that was in flight when calls paused proves nothing new.
            _ if ticket.is_none() => {}
            None => {
                (outage.answered, outage.wait) = (true, FIRST);
                outage.probe_at = outage.probe_at.min(now + FIRST);
            }
            Some(why) => {
                why.clone_into(&mut outage.why);
                outage.in_vain.insert(key.clone(), now);
                outage.in_vain.retain(|_, at| now.saturating_duration_since(*at) < IN_VAIN);
            }
        }
        let counts = outage.answered;
        self.settle(now);
        counts
    }

    fn note_usual(&mut self, key: &Bytes, failed: Option<&str>, now: Instant) {
        self.latest.push_back(Ended { key: key.clone(), failed: failed.is_some(), at: now });
        let old = |ended: &Ended| now.saturating_duration_since(ended.at) > RECENT;
        while self.latest.len() > CALLS || self.latest.front().is_some_and(old) {
            self.latest.pop_front();
        }
        let failures = self.latest.iter().filter(|ended| ended.failed);
        let (count, calls) = (failures.clone().count(), self.latest.len());
        let keys: HashSet<_> = failures.map(|ended| &ended.key).collect();
        let Some(last) = failed.filter(|_| count >= FAILED && calls == CALLS && keys.len() >= KEYS) else {
            return;
        };
        let why = format!("{count} of the latest {calls} calls failed, of {} keys; the last: {last}", keys.len());
        self.latest.clear();
        self.outage = Some(OutageState {
            since: now,
            why,
            probe_at: now + FIRST,
            wait: FIRST * 2,
            round: None,
            answered: false,
            in_vain: HashMap::new(),
        });
    }

    /// Ends the outage, or the round, once there are enough results.
    fn settle(&mut self, now: Instant) {
        let Some(outage) = &mut self.outage else { return };
        if now.saturating_duration_since(outage.since) >= IN_VAIN && (1..KEYS).contains(&outage.in_vain.len()) {
            self.outage = None;
            return;
        }
        let Some(round) = &outage.round else { return };
        let good = round.words.values().filter(|good| **good).count();
        let bad = round.words.len() - good;
        let over = round.running == 0 && good + bad > 0 && now.saturating_duration_since(round.began) >= ROUND;
        if good >= MOST || (over && good > bad) {
            self.outage = None;
        } else if bad >= MOST || over {
            outage.round = None;
            outage.probe_at = now + outage.wait;
            outage.wait = if outage.answered { FIRST } else { (outage.wait * 2).min(LONGEST) };
        }
    }

    fn round(&mut self, ticket: Ticket) -> Option<&mut Round> {
        let round = self.outage.as_mut()?.round.as_mut()?;
        (ticket == Some(round.number)).then_some(round)
    }

    /// Returns for how long to claim no events.
    pub fn paused(&mut self, now: Instant) -> Option<Duration> {
        self.settle(now);
        let left = self.outage.as_ref()?.probe_at.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// Returns how many calls may run at a time; `None` for as many as usual.
    pub fn room(&self) -> Option<usize> {
        self.outage.is_some().then_some(PROBES)
    }

    /// Returns the current outage, if there is one.
    pub fn outage_now(&self) -> Option<BreakerOutage> {
        let outage = self.outage.as_ref()?;
        Some(BreakerOutage { since: outage.since, why: outage.why.clone(), probe_at: outage.probe_at })
    }
}

/// The right to one call. Dropping it takes the right back: a drain, a timeout or a panic may end a call without a result.
#[derive(Debug)]
pub(super) struct Permit<'b> {
    breaker: &'b Mutex<Breaker>,
    ticket: Ticket,
}

impl<'b> Permit<'b> {
    /// Asks for a call; `None` while calls pause.
    pub fn ask(breaker: &'b Mutex<Breaker>, now: Instant) -> Option<Self> {
        let ticket = lock(breaker).admit(now)?;
        Some(Self { breaker, ticket })
    }

    /// Notes the result of the call; returns whether a failure counts as an attempt.
    pub fn note(mut self, key: &Bytes, failed: Option<&str>, now: Instant) -> bool {
        let ticket = self.ticket.take();
        lock(self.breaker).note(ticket, key, failed, now)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            lock(self.breaker).give_back(Some(ticket));
        }
    }
}

pub(super) fn lock(breaker: &Mutex<Breaker>) -> MutexGuard<'_, Breaker> {
    breaker.lock().expect("no holder of the breaker panics")
}

/// Returns a breaker with an outage whose probes may start at `probe_at`, for tests of other modules.
#[cfg(test)]
pub(super) fn open(probe_at: Instant) -> Breaker {
    let (why, wait) = ("on purpose".to_owned(), FIRST);
    let outage = OutageState { since: probe_at, why, probe_at, wait, round: None, answered: false, in_vain: HashMap::new() };
    Breaker { outage: Some(outage), ..Breaker::default() }
}
