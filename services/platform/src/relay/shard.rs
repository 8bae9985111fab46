//! One outbox shard, as its leader sees it. Pure: no I/O.
//!
//! Numbers are gapless and in the order of the commits. `enqueued` is the highest number taken in sequence; `log.published` is
//! the number up to which everything is published; `stored` is the last `acknowledged` that the store confirmed. A contradiction
//! (another event under a known number, or a known row that is gone) ends this *generation* of the shard: all rows in memory are
//! dropped, the lease is taken with a new epoch, and the table is read from `acknowledged`.

mod log;
mod read;
mod sending;
mod storing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use minishop_core::ids::EventId;
use minishop_store::{Led, OutboxRow};

use log::Log;
pub(super) use read::Ask;

/// Time since the start of the task.
pub(super) type Moment = Duration;

/// The table is not read further while this many rows wait in memory.
const ENOUGH_QUEUED: usize = 500;
/// Above this size, rows are not taken into memory; they are read from the table later.
const MOST_BYTES: usize = 4 << 20;

/// A reason for [`Alarm::WentBack`].
const ANOTHER_EVENT: &str = "another event under a known number";

/// The state of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The lease is not ours, or must be taken with a new epoch.
    Lost,
    /// The table must be read before anything is sent.
    Unread,
    /// Rows are sent.
    Live,
    /// A record failed. Nothing is sent until all reports are in and this time has come; then the table is read again.
    Stopped(Moment),
    /// The table lacks a number. Nothing is sent until the number is there or an operator steps over it.
    Damaged,
}

/// An alarm for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Alarm {
    /// The store was replaced by an older copy of itself, or changed by hand.
    WentBack { shard: i16, number: i64, found: &'static str },
    /// The table lacks the numbers from `number` up to `next` - 1.
    Gap { shard: i16, number: i64, next: i64 },
}

/// A shard that this process leads.
#[derive(Debug)]
pub(super) struct Shard {
    pub number: i16,
    pub epoch: i64,
    pub state: State,
    generation: u64,
    /// Rows of a read are taken only if `view` has not changed since the request.
    view: u64,
    /// Rows whose commit was confirmed before this time are not taken from memory; the table has them.
    taken_since: Moment,
    lease_until: Moment,
    stored: i64,
    log: Log,
    /// The `log` of the previous lease, to notice that the store went back.
    before: Log,
    /// Rows that are not sent yet: the last numbers up to `enqueued`.
    queue: VecDeque<OutboxRow>,
    /// Rows with numbers above `enqueued` + 1.
    ahead: BTreeMap<i64, OutboxRow>,
    bytes: usize,
    in_flight: usize,
    /// Records up to this number are sent alone, since one of them failed in a batch.
    alone_up_to: i64,
    /// Whether the record in flight was sent alone.
    alone: bool,
    /// Whether the table may hold rows that nobody hands over.
    pub look: bool,
    /// The `high` of the running `acknowledge`.
    storing: Option<i64>,
    /// A number that the last read did not find, and the next one that it found.
    gap: Option<(i64, i64)>,
    /// An alarm that is raised only if no other process turns out to lead the shard.
    suspicion: Option<Alarm>,
    /// Another process waits for the shard: nothing more is sent, and the lease is given back once everything sent is stored.
    surplus: bool,
    /// Dead letters that are sent without their value, since the broker refused them for their size.
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
    /// Starts with a new lease. `place` is unique within the process, so a report for an earlier `Shard` with this number is
    /// never taken for one of this.
    pub fn new(place: u32, led: &Led, asked_at: Moment, lease_until: Moment) -> Self {
        let mut shard = Self {
            number: led.shard,
            epoch: led.epoch,
            state: State::Lost,
            generation: u64::from(place) << 32,
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
            surplus: led.surplus,
            without_value: BTreeSet::new(),
            #[cfg(test)]
            sabotage: None,
        };
        shard.begin(led, asked_at);
        shard
    }

    /// Takes a renewed lease. After a new epoch it starts again at `led.acknowledged`.
    ///
    /// Returns the pending alarm, unless the epoch shows that another process led the shard meanwhile and caused the
    /// contradiction.
    pub fn renewed(&mut self, led: &Led, asked_at: Moment, lease_until: Moment) -> Option<Alarm> {
        let suspicion = self.suspicion.take().filter(|_| led.epoch <= self.epoch + 1);
        if self.state == State::Lost || led.epoch != self.epoch {
            self.begin(led, asked_at);
        }
        (self.lease_until, self.surplus) = (lease_until, led.surplus);
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
        // These numbers may belong to other events now.
        self.alone_up_to = 0;
        self.without_value.clear();
        self.state = State::Unread;
    }

    /// Ends this generation. Records in flight may still be published; whatever is not stored as published is sent again.
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
        self.generation += 1;
        self.view += 1;
        (self.in_flight, self.alone) = (0, false);
        self.queue.clear();
        self.ahead.clear();
        self.bytes = 0;
        self.look = false;
    }

    /// Advances the time: an expired lease makes the shard `Lost`, a stopped shard resumes.
    pub fn tick(&mut self, now: Moment) {
        if now >= self.lease_until && self.state != State::Lost {
            self.lose();
        }
        if matches!(self.state, State::Stopped(until) if self.in_flight == 0 && now >= until) {
            self.drop_everything();
            // Records behind the failed one are sent again even if they were published, to keep the order.
            self.log.cut_to_published();
            self.state = State::Unread;
        }
    }

    /// Sends nothing until a read has confirmed that the anchor is in the table.
    pub fn verify(&mut self, now: Moment) {
        // Rows in `ahead` may come from before the store went back; otherwise the table has them too.
        for (_, row) in std::mem::take(&mut self.ahead) {
            self.bytes = self.bytes.saturating_sub(row.size());
        }
        self.taken_since = now;
        // A running read may have been answered before the store was replaced.
        self.view += 1;
        match self.state {
            // Without a known anchor nothing can be verified.
            State::Live | State::Unread if self.enqueued() > 0 && self.known(self.enqueued()).is_none() => self.lose(),
            State::Live => self.state = State::Unread,
            _ => {}
        }
    }

    /// Returns the highest number taken in sequence.
    pub fn enqueued(&self) -> i64 {
        self.log.last()
    }

    /// Takes a row that this process has committed; the store confirmed it at `answered_at`.
    pub fn hand(&mut self, row: OutboxRow, answered_at: Moment) {
        // Rows committed before `taken_since` are read from the table, if the store still has them.
        if !matches!(self.state, State::Unread | State::Live) || answered_at < self.taken_since {
            return;
        }
        match self.log.known(row.number) {
            Some(id) if id == row.event.event_id => return,
            Some(_) => return self.went_back(row.number, ANOTHER_EVENT),
            // `log` does not reach back to this number: the row was handed over late, or the store went back. Reading the
            // table shows which.
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
                // The store has lost one of the two events. Reading the table shows which one is left.
                self.ahead.remove(&number);
                self.bytes = self.bytes.saturating_sub(size);
                self.look = true;
            }
        }
    }

    /// Moves rows that are next in sequence from `ahead` to `queue`. If a read has brought their numbers meanwhile, the events must
    /// be the same.
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
            // The previous lease knew another event under this number, so the store went back in between.
            self.suspicion = Some(Alarm::WentBack { shard: self.number, number: row.number, found: ANOTHER_EVENT });
            self.before = Log::at(0);
        }
        // A row that is set aside counts as published.
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

    /// Ends this generation because the store contradicts what this leader knows. If the lease was lost, another leader may be the
    /// cause.
    pub fn went_back(&mut self, number: i64, found: &'static str) {
        self.lose();
        self.suspicion = Some(Alarm::WentBack { shard: self.number, number, found });
    }

    /// Returns the event of a number, if it is remembered.
    pub fn known(&self, number: i64) -> Option<EventId> {
        self.log.known(number)
    }

    /// Returns whether all known rows are published.
    pub fn is_idle(&self) -> bool {
        self.log.published() == self.enqueued() && self.ahead.is_empty()
    }
}
