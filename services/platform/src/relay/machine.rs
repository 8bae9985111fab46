//! What a relay knows of all its shards, and what it wants done next. Pure: no I/O, and the time is an argument.
//!
//! [`Machine::wants`] says what to ask of the store; each answer comes back through the method of its name. At most one read, one
//! `acknowledge` and one renewal run at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::said::{Aside, Job, Sending, Trouble, Want};
use super::shard::{Alarm, Ask, Moment, Shard, State, Token};
use crate::store::{Acknowledged, LEASE, Leadership, OutboxRow};

/// How long a lease is used: a second less than it lasts, for the answer's way back and clocks that run unevenly.
const OURS: Duration = LEASE.saturating_sub(Duration::from_secs(1));
/// How often leases are renewed.
const RENEW: Duration = Duration::from_secs(1);
/// How soon leases are asked for again when some were lost or not to be had.
const ANEW: Duration = Duration::from_millis(20);
/// How often the store is told what is published, while there is more to come, and how many numbers make it sooner.
const STORE: Duration = Duration::from_millis(50);
const MANY_PUBLISHED: i64 = 1_000;
/// How often rows are looked for that nobody hands over: the first while there are some, then ever more rarely, up to the second
/// while other processes write, and to the third while none does.
const LOOK: [Duration; 3] = [Duration::from_millis(10), Duration::from_millis(50), Duration::from_millis(500)];
/// How soon the next read may follow.
const READ_SOONEST: Duration = Duration::from_millis(4);
/// How long a shard rests after a record failed.
const REST: Duration = Duration::from_millis(500);
/// Records that the producer may hold unreported; its own queue holds 10 000.
const MOST_IN_FLIGHT: usize = 8_000;
/// Bytes and rows of one read of a shard.
const READ_BYTES: usize = 1 << 20;
const READ_ROWS: (usize, usize) = (16, 1_000);

/// What the leader knows of its shards.
#[derive(Debug)]
pub(super) struct Machine {
    pub shards: BTreeMap<i16, Shard>,
    pub alarms: Vec<Alarm>,
    asides: Vec<Aside>,
    in_flight: usize,
    others_write: bool,
    /// How often a shard was taken up.
    taken: u32,
    /// Counts what may have been a change of the store: leases that were asked for before it are asked for again.
    session: u64,
    led_in: u64,
    /// What the store has been asked and has not answered.
    running: BTreeSet<Job>,
    renew_at: Moment,
    store_at: Moment,
    look_at: Moment,
    read_from: Moment,
    look_every: Duration,
    retry_at: Moment,
    typical_size: usize,
    #[cfg(test)]
    pub sabotage: Option<super::shard::Sabotage>,
}

impl Machine {
    pub fn new() -> Self {
        Self {
            shards: BTreeMap::new(),
            alarms: Vec::new(),
            asides: Vec::new(),
            in_flight: 0,
            others_write: false,
            taken: 0,
            session: 0,
            led_in: 0,
            running: BTreeSet::new(),
            renew_at: Moment::ZERO,
            store_at: Moment::ZERO,
            look_at: Moment::ZERO,
            read_from: Moment::ZERO,
            look_every: LOOK[0],
            retry_at: Moment::ZERO,
            typical_size: 2_048,
            #[cfg(test)]
            sabotage: None,
        }
    }

    fn runs(&self, job: Job) -> bool {
        self.running.contains(&job)
    }

    /// Lets time pass and says what to ask of the store now. What is returned counts as begun.
    pub fn wants(&mut self, now: Moment) -> Vec<Want> {
        for shard in self.shards.values_mut() {
            shard.tick(now);
        }
        let mut wants = Vec::new();
        if now < self.retry_at {
            return wants;
        }
        let lost: Vec<i16> = self.shards.values().filter(|s| s.state == State::Lost).map(|s| s.number).collect();
        // Not while the store is being told: the answer must not be older than what is told.
        if !self.runs(Job::Lead) && !self.runs(Job::Acknowledge) && now >= self.renew_at {
            self.running.insert(Job::Lead);
            self.led_in = self.session;
            self.renew_at = now + RENEW;
            wants.push(Want::Lead(lost));
        } else if !lost.is_empty() {
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

    /// Tells when to look again for what is due, if nothing else happens before.
    pub fn look_again(&self, now: Moment) -> Moment {
        let mut next = self.renew_at;
        if self.shards.values().any(|shard| shard.unstored() > 0) {
            next = next.min(self.store_at);
        }
        if self.shards.values().any(|shard| matches!(shard.state, State::Stopped(_) | State::Lost) || shard.misses()) {
            next = next.min(now + READ_SOONEST);
        }
        next.min(self.look_at).max(self.retry_at).max(now + Duration::from_millis(1))
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

    fn read(&mut self, now: Moment) -> Option<Want> {
        let due = now >= self.look_at;
        let missing = self.shards.values().any(Shard::misses) && now >= self.read_from + READ_SOONEST;
        if !due && !missing {
            return None;
        }
        if due {
            self.look_every = (self.look_every * 2).min(LOOK[if self.others_write { 1 } else { 2 }]);
            self.look_at = now + self.look_every;
        }
        let asks: Vec<Ask> = self.shards.values().filter(|shard| due || shard.misses()).filter_map(Shard::ask).collect();
        self.read_from = now;
        if asks.is_empty() {
            return None;
        }
        self.running.insert(Job::Read);
        let limit = (READ_BYTES / self.typical_size).clamp(READ_ROWS.0, READ_ROWS.1);
        Some(Want::Read(asks, limit))
    }

    /// Takes up renewed leases, asked for at a time: they count from then, since the database's clock may have run on meanwhile.
    pub fn led(&mut self, asked_at: Moment, view: &Leadership) {
        self.running.remove(&Job::Lead);
        if self.led_in != self.session {
            self.renew_at = Moment::ZERO;
            return;
        }
        self.others_write = view.others_write;
        let until = asked_at + OURS;
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

    /// Takes the rows of a read.
    pub fn brought(&mut self, asks: &[Ask], limit: usize, rows: Vec<OutboxRow>) {
        self.running.remove(&Job::Read);
        let mut by_shard: BTreeMap<i16, Vec<OutboxRow>> = BTreeMap::new();
        for row in rows {
            self.typical_size = (self.typical_size * 15 + row.size()) / 16;
            by_shard.entry(row.event.shard).or_default().push(row);
        }
        let mut new = 0;
        for ask in asks {
            let rows = by_shard.remove(&ask.span.shard).unwrap_or_default();
            let Some(shard) = self.shards.get_mut(&ask.span.shard) else { continue };
            let full = rows.len() >= limit;
            let brought = shard.read(ask, rows, full);
            new += brought.rows;
            self.alarms.extend(brought.alarm);
        }
        if new > 0 {
            self.look_every = LOOK[0];
        }
    }

    /// Takes the store's answer to what is published; returns how many rows are gone.
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

    /// Takes the store's answer to a row that was to be set aside.
    pub fn aside(&mut self, aside: &Aside, agreed: bool) {
        self.running.remove(&Job::SetAside);
        let Some(shard) = self.shards.get_mut(&aside.token.shard).filter(|shard| shard.is_current(aside.token)) else { return };
        if agreed {
            shard.set_aside(aside.token.number);
        } else {
            shard.went_back(aside.token.number, "another event under a known number");
        }
    }

    /// The store did not answer: whatever was in hand is dropped, and leases are taken anew.
    pub fn store_failed(&mut self, job: Job, retry_at: Moment) {
        self.running.remove(&job);
        self.retry_at = retry_at;
        self.renew_at = Moment::ZERO;
        self.lose_all();
    }

    /// Drops everything in hand.
    pub fn lose_all(&mut self) {
        self.session += 1;
        self.asides.clear();
        self.shards.values_mut().for_each(Shard::lose);
    }

    /// Takes rows that this process has committed, as the store has answered at a time; tells whether some belong to shards that
    /// others lead.
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

    /// Looks at the table as soon as the store is free: there may be rows that nobody will hand over.
    pub fn look(&mut self) {
        self.look_every = LOOK[0];
        self.look_at = Moment::ZERO;
    }

    /// A session broke, or began: the store may be another than before. Nothing more is sent until the table has been looked at.
    pub fn verify(&mut self, now: Moment) {
        self.session += 1;
        self.shards.values_mut().for_each(|shard| shard.verify(now));
        self.look();
    }

    /// The next row to send, of any shard.
    pub fn next(&self, now: Moment) -> Option<Sending<'_>> {
        if self.in_flight >= MOST_IN_FLIGHT {
            return None;
        }
        self.shards.values().find_map(|shard| shard.next(now))
    }

    /// Notes that the next row of a shard is with the producer.
    pub fn sent(&mut self, token: Token) {
        if let Some(shard) = self.shards.get_mut(&token.shard) {
            shard.sent();
            self.in_flight += 1;
        }
    }

    /// The next row of a shard can never be sent.
    pub fn cannot_send(&mut self, token: Token, reason: String) {
        let row = self.shards.get_mut(&token.shard).and_then(Shard::take_next);
        self.asides.extend(row.map(|row| Aside { token, event_id: row.event.event_id, reason }));
    }

    /// Takes up a report; `Ok` when the record is published.
    pub fn report(&mut self, token: Token, outcome: Result<(), Trouble>, now: Moment) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let Some(shard) = self.shards.get_mut(&token.shard).filter(|shard| shard.is_current(token)) else { return };
        match outcome {
            Ok(()) => shard.published(token.number),
            Err(trouble) => {
                shard.returned();
                match trouble {
                    Trouble::OfTopic => shard.doubt(now + REST),
                    // It may be the fault of another record of its batch.
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

    /// A dead letter is too large: it goes without its value, which stays in the store.
    pub fn without_value(&mut self, token: Token, now: Moment) {
        if let Some(shard) = self.shards.get_mut(&token.shard) {
            shard.without_value.insert(token.number);
            shard.stop(now);
        }
    }

    /// The topic of a shard's next row does not take records.
    pub fn stop(&mut self, shard: i16, now: Moment) {
        if let Some(shard) = self.shards.get_mut(&shard) {
            shard.stop(now + REST);
        }
    }

    /// The producer is gone, with everything that it held.
    pub fn producer_lost(&mut self, now: Moment) {
        self.in_flight = 0;
        for shard in self.shards.values_mut() {
            shard.producer_lost(now);
        }
    }

    /// Tells whether a shard lacks numbers.
    pub fn is_damaged(&self) -> bool {
        self.shards.values().any(|shard| shard.state == State::Damaged)
    }

    /// Tells whether nothing is left to send, to be reported or to be stored.
    pub fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.shards.values().all(|shard| shard.is_idle() && shard.unstored() == 0)
    }
}
