//! One outbox shard in the hands of its leader. Pure: it decides, and does nothing.
//!
//! Numbers are gapless and in the order of the commits. `enqueued` is the highest number that was taken in its turn, `acknowledged` the
//! highest up to which everything is published, `stored` what the store says of the latter. Whatever contradicts the
//! store's promises (another event under a known number, a number that is gone) ends the shard's life: everything in hand is
//! dropped, the lease is taken anew, and the table is read from `stored`.

mod log;
mod read;
mod sending;
mod storing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use minishop_core::ids::EventId;

use crate::store::{Led, OutboxRow};
use log::Log;
pub(super) use read::Ask;

/// The time since some fixed moment of the process.
pub(super) type Moment = Duration;

/// A shard with so many rows to send is not read any further.
const ENOUGH_QUEUED: usize = 500;
/// How many bytes of rows a shard keeps in memory before it leaves them to the table.
const MOST_BYTES: usize = 4 << 20;

/// What contradicts a store that only goes forward.
const ANOTHER_EVENT: &str = "another event under a known number";

/// Where a shard stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing is known of it any more: its lease must be taken anew.
    Lost,
    /// The table must be read before anything is sent.
    Unread,
    /// Rows are sent as they come.
    Live,
    /// A record failed: nothing is sent until all reports are in, then the table is read again, not before this time.
    Stopped(Moment),
    /// The table lacks a number that must be there. Nothing is sent until it is there, or an operator steps over it.
    Damaged,
}

/// Names a record on its way: shard, number, and the life of the shard in which it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token {
    /// The outbox shard.
    pub shard: i16,
    /// The number in it.
    pub number: i64,
    /// Which life of the shard. Reports of an earlier one say nothing.
    pub life: u64,
}

/// What an operator must hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Alarm {
    /// The store is an older copy of itself, or was changed by hand.
    WentBack { shard: i16, number: i64, found: &'static str },
    /// A number is missing in the table.
    Gap { shard: i16, number: i64, next: i64 },
}

/// What the leader knows of a shard.
#[derive(Debug)]
pub(super) struct Shard {
    pub number: i16,
    pub epoch: i64,
    pub state: State,
    life: u64,
    /// What was read is worth something only in the view in which it was asked for.
    view: u64,
    /// Rows whose commit was answered before this time are left to the table.
    taken_since: Moment,
    lease_until: Moment,
    stored: i64,
    log: Log,
    /// What was known before the lease was taken.
    before: Log,
    /// Rows that are taken and not yet sent: the last numbers up to `enqueued`.
    queue: VecDeque<OutboxRow>,
    /// Rows that came ahead of their turn.
    ahead: BTreeMap<i64, OutboxRow>,
    bytes: usize,
    in_flight: usize,
    /// Up to here records go alone: one of them failed among others.
    alone_up_to: i64,
    /// Whether the record in flight goes alone.
    alone: bool,
    /// Whether the table may hold rows that nobody will hand over.
    pub look: bool,
    /// The numbers that a running `acknowledge` may remove.
    storing: Option<i64>,
    /// A number that was missing in the last read, and the next one that was there.
    gap: Option<(i64, i64)>,
    /// What contradicted this leader's view, until it is known whether another leads.
    suspicion: Option<Alarm>,
    /// Dead letters that go without their value, since the broker refused them for their size.
    pub without_value: BTreeSet<i64>,
    #[cfg(test)]
    pub sabotage: Option<Sabotage>,
}

/// A fault that the simulation must find.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sabotage {
    SendOnAGap,
    HandOverBeforeTheAnswer,
    KeepAfterALapse,
    RemoveByNumberAlone,
    AcknowledgeBeforeTheReport,
}

impl Shard {
    /// Begins with a lease that was just taken.
    ///
    /// `place` tells the shards of a process apart that have the same number one after the other, and is never used twice.
    pub fn new(place: u32, led: &Led, asked_at: Moment, lease_until: Moment) -> Self {
        let mut shard = Self {
            number: led.shard,
            epoch: led.epoch,
            state: State::Lost,
            life: u64::from(place) << 32,
            view: u64::from(place) << 32,
            taken_since: asked_at,
            lease_until,
            stored: led.acknowledged,
            log: Log::at(led.acknowledged),
            before: Log::at(led.acknowledged),
            queue: VecDeque::new(),
            ahead: BTreeMap::new(),
            bytes: 0,
            in_flight: 0,
            alone_up_to: 0,
            alone: false,
            look: false,
            storing: None,
            gap: None,
            suspicion: None,
            without_value: BTreeSet::new(),
            #[cfg(test)]
            sabotage: None,
        };
        shard.begin(led, asked_at);
        shard
    }

    /// Takes up a renewed lease; one that was taken anew begins at what the store says.
    ///
    /// What contradicted this shard's view is told now: where the epoch has only moved by our own taking, no other leader did it.
    pub fn renewed(&mut self, led: &Led, asked_at: Moment, lease_until: Moment) -> Option<Alarm> {
        let suspicion = self.suspicion.take().filter(|_| led.epoch <= self.epoch + 1);
        if self.state == State::Lost || led.epoch != self.epoch {
            self.begin(led, asked_at);
        }
        self.lease_until = lease_until;
        suspicion
    }

    fn begin(&mut self, led: &Led, asked_at: Moment) {
        #[cfg(test)]
        if self.sabotage == Some(Sabotage::KeepAfterALapse) && self.enqueued() > 0 {
            (self.epoch, self.state) = (led.epoch, State::Live);
            return;
        }
        self.drop_everything();
        self.epoch = led.epoch;
        self.taken_since = asked_at;
        self.stored = led.acknowledged;
        self.before = std::mem::replace(&mut self.log, Log::at(led.acknowledged));
        self.storing = None;
        // What was found out of numbers may have been found out of others' events.
        self.alone_up_to = 0;
        self.without_value.clear();
        self.state = State::Unread;
    }

    /// Ends this life. What is in flight is nobody's any more: it may be published, and what is not stored is sent again.
    pub fn lose(&mut self) {
        #[cfg(test)]
        if self.sabotage == Some(Sabotage::KeepAfterALapse) {
            self.state = State::Lost;
            return;
        }
        self.drop_everything();
        self.state = State::Lost;
    }

    fn drop_everything(&mut self) {
        self.life += 1;
        self.view += 1;
        (self.in_flight, self.alone) = (0, false);
        self.queue.clear();
        self.ahead.clear();
        self.bytes = 0;
        self.look = false;
    }

    /// Lets time pass: a lease runs out, a stopped shard goes on.
    pub fn tick(&mut self, now: Moment) {
        if now >= self.lease_until && self.state != State::Lost {
            self.lose();
        }
        if matches!(self.state, State::Stopped(until) if self.in_flight == 0 && now >= until) {
            self.drop_everything();
            // What was published behind the failure is sent once more, in its order.
            self.log.cut_to_published();
            self.state = State::Unread;
        }
    }

    /// Sends nothing more before the anchor has been seen in the table.
    pub fn verify(&mut self, now: Moment) {
        // What came ahead may be of a past that the store has lost; else it stands in the table.
        for (_, row) in std::mem::take(&mut self.ahead) {
            self.bytes = self.bytes.saturating_sub(row.size());
        }
        self.taken_since = now;
        // A read that is under way may have been answered by the store as it was.
        self.view += 1;
        match self.state {
            // Without an anchor that is known nothing can be verified.
            State::Live | State::Unread if self.enqueued() > 0 && self.known(self.enqueued()).is_none() => self.lose(),
            State::Live => self.state = State::Unread,
            _ => {}
        }
    }

    /// The highest number that was taken in its turn.
    pub fn enqueued(&self) -> i64 {
        self.log.last()
    }

    /// Takes a row that this process has committed, as the store has answered at a time.
    pub fn hand(&mut self, row: OutboxRow, answered_at: Moment) {
        // What was committed before that stands in the table, or is of a past that the store has lost.
        if !matches!(self.state, State::Unread | State::Live) || answered_at < self.taken_since {
            return;
        }
        match self.log.known(row.number) {
            Some(id) if id == row.event.event_id => return,
            Some(_) => return self.went_back(row.number, ANOTHER_EVENT),
            // Older than anything that is remembered: either late, or the store went back far. The anchor tells.
            None if row.number <= self.enqueued() => self.look = true,
            None if self.bytes >= MOST_BYTES => self.look = true,
            None if self.state == State::Live && row.number == self.enqueued() + 1 => self.push(row),
            #[cfg(test)]
            None if self.sabotage == Some(Sabotage::SendOnAGap) && self.state == State::Live => self.jump(row),
            None => self.keep(row),
        }
        self.absorb();
    }

    fn keep(&mut self, row: OutboxRow) {
        let (number, size, id) = (row.number, row.size(), row.event.event_id);
        self.bytes += size;
        if let Some(other) = self.ahead.insert(number, row) {
            self.bytes = self.bytes.saturating_sub(other.size());
            if other.event.event_id != id {
                // One of them is of a past that the store has lost: the table tells which.
                self.ahead.remove(&number);
                self.bytes = self.bytes.saturating_sub(size);
                self.look = true;
            }
        }
    }

    /// Takes what came ahead of its turn and has its turn now; what the table has brought meanwhile must be the same.
    fn absorb(&mut self) {
        while self.state == State::Live
            && let Some(first) = self.ahead.first_entry()
            && *first.key() <= self.log.last() + 1
        {
            let row = first.remove();
            self.bytes = self.bytes.saturating_sub(row.size());
            if row.number == self.enqueued() + 1 {
                self.push(row);
            } else if self.log.known(row.number).is_some_and(|id| id != row.event.event_id) {
                self.went_back(row.number, ANOTHER_EVENT);
            }
        }
    }

    fn push(&mut self, row: OutboxRow) {
        debug_assert_eq!(row.number, self.enqueued() + 1, "a number is never skipped");
        if self.before.known(row.number).is_some_and(|id| id != row.event.event_id) {
            // Nothing of it is in hand any more, but whoever runs this must know.
            self.suspicion = Some(Alarm::WentBack { shard: self.number, number: row.number, found: ANOTHER_EVENT });
            self.before = Log::at(0);
        }
        // What is set aside counts as published, in its turn.
        self.log.push(row.event.event_id, row.set_aside);
        if !row.set_aside {
            self.bytes += row.size();
            self.queue.push_back(row);
        }
    }

    #[cfg(test)]
    fn jump(&mut self, row: OutboxRow) {
        self.log = Log::at(row.number - 1);
        self.push(row);
    }

    /// Ends this life since the store is not what this leader knows. That may be another leader's doing, if the lease is lost.
    pub fn went_back(&mut self, number: i64, found: &'static str) {
        self.lose();
        self.suspicion = Some(Alarm::WentBack { shard: self.number, number, found });
    }

    /// The event that bears a number, if that is remembered.
    pub fn known(&self, number: i64) -> Option<EventId> {
        self.log.known(number)
    }

    /// Whether everything that is known of is published.
    pub fn is_idle(&self) -> bool {
        self.log.published() == self.enqueued() && self.ahead.is_empty()
    }
}
