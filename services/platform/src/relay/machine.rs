//! The state machine over all shards that this process leads. Pure: it does no I/O, and the time is an argument.
//!
//! [`Machine::wants`] returns the requests to the store that are due. Each answer comes back through its own method (`led`,
//! `brought`, `acknowledged`, `aside`, or `store_failed`). At most one request of each [`Job`] runs at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use minishop_bus::produce::Token;
use minishop_store::{Acknowledged, LEASE, Leadership, OutboxRow, Renewal};

use super::messages::{Aside, Job, Sending, Trouble, Want};
use super::read_pace::ReadPace;
use super::shard::{Alarm, Ask, Moment, Shard, State};

/// How long after a lease request its shard may be sent from: `LEASE` less a second for the delay of the answer and for clock
/// drift.
const USABLE: Duration = LEASE.saturating_sub(Duration::from_secs(1));
/// The interval of lease renewals.
const RENEW: Duration = Duration::from_secs(1);
/// The pause before leases are requested again while some shard is `Lost`.
const ANEW: Duration = Duration::from_millis(20);
/// The interval of `acknowledge` while records are in flight, and how many published numbers make it run at once.
const STORE: Duration = Duration::from_millis(50);
const MANY_PUBLISHED: i64 = 1_000;
/// How soon shards that are stopped or lost are looked at again.
const RECHECK: Duration = Duration::from_millis(4);
/// The pause of a shard after its topic refused a record.
const REST: Duration = Duration::from_millis(500);
/// Records that the producer may hold unreported; its own queue holds 10 000.
const MOST_IN_FLIGHT: usize = 8_000;

/// The shards that this process leads, and the requests to the store that are running.
#[derive(Debug, Default)]
pub(super) struct Machine {
    pub shards: BTreeMap<i16, Shard>,
    pub alarms: Vec<Alarm>,
    asides: Vec<Aside>,
    in_flight: usize,
    /// How many `Shard`s were created: each has its own range of `generation` numbers.
    taken: u32,
    /// Counts events after which the store may be another one. Leases requested before such an event are requested again.
    session: u64,
    led_in: u64,
    /// Requests in flight to the store.
    running: BTreeSet<Job>,
    renew_at: Moment,
    store_at: Moment,
    retry_at: Moment,
    reads: ReadPace,
    #[cfg(test)]
    pub sabotage: Option<super::shard::Sabotage>,
}

impl Machine {
    fn runs(&self, job: Job) -> bool {
        self.running.contains(&job)
    }

    fn renewal(&self) -> Renewal {
        let numbers = |of: fn(&Shard) -> bool| self.shards.values().filter(|shard| of(shard)).map(|shard| shard.number).collect();
        Renewal { anew: numbers(|shard| shard.state == State::Lost), finished: numbers(Shard::is_finished) }
    }

    /// Advances the time and returns the requests that are due. The caller must run all of them.
    pub fn wants(&mut self, now: Moment) -> Vec<Want> {
        for shard in self.shards.values_mut() {
            shard.tick(now);
        }
        let mut wants = Vec::new();
        if now < self.retry_at {
            return wants;
        }
        let renewal = self.renewal();
        // Not during `acknowledge`: the renewal would return an older `acknowledged` than the one being stored.
        if !self.runs(Job::Lead) && !self.runs(Job::Acknowledge) && now >= self.renew_at {
            self.running.insert(Job::Lead);
            self.led_in = self.session;
            self.renew_at = now + RENEW;
            wants.push(Want::Lead(renewal));
        } else if renewal != Renewal::default() {
            self.renew_at = self.renew_at.min(now + ANEW);
        }
        if !self.runs(Job::Acknowledge) && !self.runs(Job::Lead) {
            wants.extend(self.acknowledge(now));
        }
        if !self.runs(Job::Read) {
            wants.extend(self.read(now));
        }
        if !self.runs(Job::SetAside)
            && let Some(aside) = self.asides.pop()
        {
            self.running.insert(Job::SetAside);
            wants.push(Want::SetAside(aside));
        }
        wants
    }

    /// Returns when to call `wants` again at the latest.
    pub fn look_again(&self, now: Moment) -> Moment {
        let mut next = self.renew_at;
        if self.shards.values().any(|shard| shard.unstored() > 0) {
            next = next.min(self.store_at);
        }
        if self.shards.values().any(|shard| matches!(shard.state, State::Stopped(_) | State::Lost)) {
            next = next.min(now + RECHECK);
        }
        if !self.runs(Job::Read) {
            next = next.min(self.reads.next(now, self.misses_rows()));
        }
        next.max(self.retry_at).max(now + Duration::from_millis(1))
    }

    fn acknowledge(&mut self, now: Moment) -> Option<Want> {
        let waiting: i64 = self.shards.values().map(Shard::unstored).sum();
        let idle = self.in_flight == 0 && self.shards.values().all(Shard::is_idle);
        if waiting == 0 || (now < self.store_at && waiting < MANY_PUBLISHED && !idle) {
            return None;
        }
        let mut published = Vec::new();
        for shard in self.shards.values_mut() {
            if let Some(asked) = shard.to_store() {
                shard.storing(asked.high());
                published.push(asked);
            }
        }
        self.store_at = now + STORE;
        if published.is_empty() {
            return None;
        }
        self.running.insert(Job::Acknowledge);
        Some(Want::Acknowledge(published))
    }

    /// Returns whether some shard knows of rows that only the table has.
    fn misses_rows(&self) -> bool {
        self.shards.values().any(Shard::misses)
    }

    fn read(&mut self, now: Moment) -> Option<Want> {
        let whole = self.reads.start(now, self.misses_rows())?;
        let asks: Vec<Ask> =
            self.shards.values().filter(|shard| whole || shard.misses()).filter_map(|shard| shard.ask(whole)).collect();
        if asks.is_empty() {
            return None;
        }
        self.running.insert(Job::Read);
        Some(Want::Read(asks, self.reads.limit()))
    }

    /// Takes the answer to `Want::Lead`. Leases count from `asked_at`, since the database started them at some later time.
    pub fn led(&mut self, asked_at: Moment, view: &Leadership) {
        self.running.remove(&Job::Lead);
        if self.led_in != self.session {
            self.renew_at = Moment::ZERO;
            return;
        }
        self.reads.others_write = view.others_write;
        let until = asked_at + USABLE;
        self.shards.retain(|shard, _| view.shards.iter().any(|led| led.shard == *shard));
        for led in &view.shards {
            let shard = self.shards.entry(led.shard).or_insert_with(|| {
                self.taken += 1;
                Shard::new(self.taken, led, asked_at, until)
            });
            #[cfg(test)]
            (shard.sabotage = self.sabotage);
            self.alarms.extend(shard.renewed(led, asked_at, until));
        }
    }

    /// Takes the answer to `Want::Read`.
    pub fn brought(&mut self, asks: &[Ask], limit: usize, rows: Vec<OutboxRow>, now: Moment) {
        self.running.remove(&Job::Read);
        let mut by_shard: BTreeMap<i16, Vec<OutboxRow>> = BTreeMap::new();
        for row in rows {
            self.reads.measure(&row);
            by_shard.entry(row.event.shard).or_default().push(row);
        }
        let (mut new, mut more) = (0, false);
        for ask in asks {
            let Some(number) = ask.spans.first().map(|span| span.shard) else { continue };
            let rows = by_shard.remove(&number).unwrap_or_default();
            let Some(shard) = self.shards.get_mut(&number) else { continue };
            more |= rows.len() >= limit;
            let brought = shard.read(ask, rows, limit);
            new += brought.rows;
            self.alarms.extend(brought.alarm);
        }
        self.reads.ended(now, new > 0, more);
    }

    /// Takes the answer to `Want::Acknowledge`; returns how many rows were removed.
    pub fn acknowledged(&mut self, asked: &[Acknowledged], agreed: bool) -> i64 {
        self.running.remove(&Job::Acknowledge);
        let mut removed = 0;
        for asked in asked {
            let Some(shard) = self.shards.get_mut(&asked.shard) else { continue };
            shard.stored(asked, agreed);
            removed += asked.high() - asked.low;
        }
        if agreed { removed } else { 0 }
    }

    /// Takes the answer to `Want::SetAside`.
    pub fn aside(&mut self, aside: &Aside, agreed: bool) {
        self.running.remove(&Job::SetAside);
        let Some(shard) = self.shards.get_mut(&aside.token.shard).filter(|shard| shard.is_current(aside.token)) else { return };
        if agreed {
            shard.set_aside(aside.token.number);
        } else {
            shard.went_back(aside.token.number, "another event under a known number");
        }
    }

    /// Drops all rows in memory and requests the leases again: a request failed or its outcome is unknown.
    pub fn store_failed(&mut self, job: Job, retry_at: Moment) {
        self.running.remove(&job);
        self.retry_at = retry_at;
        self.renew_at = Moment::ZERO;
        self.lose_all();
    }

    /// Drops all rows in memory; every shard becomes `Lost`.
    pub fn lose_all(&mut self) {
        self.session += 1;
        self.asides.clear();
        self.shards.values_mut().for_each(Shard::lose);
    }

    /// Takes rows that this process has committed; the store confirmed the commit at `answered_at`. Returns whether some belong
    /// to shards that other processes lead.
    pub fn hand(&mut self, rows: Vec<OutboxRow>, answered_at: Moment) -> bool {
        let mut of_others = false;
        for row in rows {
            match self.shards.get_mut(&row.event.shard) {
                Some(shard) => shard.hand(row, answered_at),
                None => of_others = true,
            }
        }
        of_others
    }

    /// Reads the table as soon as no read is running: it may hold rows that nobody hands over.
    pub fn look(&mut self) {
        self.reads.look();
    }

    /// Sends nothing until the table has been read: a connection to the store was lost or is new, so the store may be an older
    /// copy.
    pub fn verify(&mut self, now: Moment) {
        self.session += 1;
        self.shards.values_mut().for_each(|shard| shard.verify(now));
        self.look();
    }

    /// Returns the next row to send, of any shard.
    pub fn next(&self, now: Moment) -> Option<Sending<'_>> {
        if self.in_flight >= MOST_IN_FLIGHT {
            return None;
        }
        self.shards.values().find_map(|shard| shard.next(now))
    }

    /// Notes that the producer accepted a shard's next row.
    pub fn sent(&mut self, token: Token) {
        if let Some(shard) = self.shards.get_mut(&token.shard) {
            shard.sent();
            self.in_flight += 1;
        }
    }

    /// Sets the next row of a shard aside: the producer refuses it for good.
    pub fn cannot_send(&mut self, token: Token, reason: String) {
        let row = self.shards.get_mut(&token.shard).and_then(Shard::take_next);
        self.asides.extend(row.map(|row| Aside { token, event_id: row.event.event_id, reason }));
    }

    /// Takes a delivery report.
    pub fn report(&mut self, token: Token, outcome: Result<(), Trouble>, now: Moment) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let Some(shard) = self.shards.get_mut(&token.shard).filter(|shard| shard.is_current(token)) else { return };
        match outcome {
            Ok(()) => shard.published(token.number),
            Err(trouble) => {
                shard.returned();
                match trouble {
                    Trouble::OfTopic => shard.doubt(now + REST),
                    // Another record of the batch may be the cause.
                    _ if !shard.is_alone(token.number) => shard.doubt(now),
                    Trouble::TooLarge if !shard.without_value.contains(&token.number) => self.without_value(token, now),
                    Trouble::TooLarge => self.give_up(token, "the record is too large".to_owned()),
                    Trouble::OfRecord(reason) => self.give_up(token, reason),
                }
            }
        }
    }

    fn give_up(&mut self, token: Token, reason: String) {
        let event_id = self.shards.get(&token.shard).and_then(|shard| shard.known(token.number));
        self.asides.extend(event_id.map(|event_id| Aside { token, event_id, reason }));
    }

    /// Sends a dead letter that is too large again, without its value, which stays in the store.
    pub fn without_value(&mut self, token: Token, now: Moment) {
        if let Some(shard) = self.shards.get_mut(&token.shard) {
            shard.without_value.insert(token.number);
            shard.stop(now);
        }
    }

    /// Pauses a shard: its topic accepts no records.
    pub fn stop(&mut self, shard: i16, now: Moment) {
        if let Some(shard) = self.shards.get_mut(&shard) {
            shard.stop(now + REST);
        }
    }

    /// Forgets what is in flight: reports of the replaced producer are ignored.
    pub fn producer_lost(&mut self, now: Moment) {
        self.in_flight = 0;
        for shard in self.shards.values_mut() {
            shard.producer_lost(now);
        }
    }

    /// Returns whether a shard lacks numbers.
    pub fn is_damaged(&self) -> bool {
        self.shards.values().any(|shard| shard.state == State::Damaged)
    }

    /// Returns whether nothing is left to send, to be reported or to be stored.
    pub fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.shards.values().all(|shard| shard.is_idle() && shard.unstored() == 0)
    }
}
