//! Reading a shard's rows from the table.
//!
//! Each read begins with the *anchor*: the row of the highest number that was taken. The store keeps it until a later one is
//! published, so it must be there and bear the event that is known: then the store is the one that was read before.

use super::{ANOTHER_EVENT, Alarm, ENOUGH_QUEUED, MOST_BYTES, Shard, State};
use crate::store::{OutboxRow, Span};

/// A read of one shard, as it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Ask {
    pub span: Span,
    /// The row that must be the first, unless nothing was ever taken.
    anchor: Option<i64>,
    view: u64,
}

/// What a row of the table is to the leader.
enum Taken {
    New,
    Known,
    /// It contradicts what is known.
    Against(Option<Alarm>),
}

/// What a read of one shard came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Brought {
    /// How many rows are new.
    pub rows: usize,
    pub alarm: Option<Alarm>,
}

impl Shard {
    /// Whether rows are missing that must be there: nothing later is sent before them.
    pub fn misses(&self) -> bool {
        match self.state {
            State::Unread => true,
            State::Live => self.look || !self.ahead.is_empty(),
            _ => false,
        }
    }

    /// Asks for the rows that come next; `None` when it would only fill the memory.
    pub fn ask(&self) -> Option<Ask> {
        if let (State::Damaged, Some((number, _))) = (self.state, self.gap) {
            let span = Span { shard: self.number, low: number, high: number + 1 };
            return Some(Ask { span, anchor: None, view: self.view });
        }
        let anchor = Some(self.enqueued()).filter(|number| *number > 0);
        let low = anchor.unwrap_or(1);
        let full = self.queue.len() >= ENOUGH_QUEUED || self.bytes >= MOST_BYTES;
        let high = match self.state {
            // However full it is, the anchor must be seen before anything is sent.
            State::Unread if full => low,
            // Only what is missing, where that is known.
            State::Unread | State::Live if !full => self.ahead.first_key_value().map_or(i64::MAX, |(number, _)| *number),
            _ => return None,
        };
        Some(Ask { span: Span { shard: self.number, low, high: high.max(low + 1) }, anchor, view: self.view })
    }

    /// Takes what a read brought: the first rows of the span; `full` when there may be more.
    pub fn read(&mut self, ask: &Ask, rows: Vec<OutboxRow>, full: bool) -> Brought {
        if self.state == State::Damaged && ask.view == self.view && !rows.is_empty() {
            // Somebody has filled the gap.
            self.gap = None;
            self.lose();
        }
        if ask.view != self.view || !matches!(self.state, State::Unread | State::Live) {
            return Brought::default();
        }
        // A read of the anchor alone tells nothing of what follows.
        self.look = full || ask.span.high == ask.span.low + 1;
        if let Some(anchor) = ask.anchor
            && rows.first().is_none_or(|row| row.number != anchor)
            && let Some(brought) = self.without_anchor(anchor, &rows)
        {
            return brought;
        }
        let mut taken = 0;
        for row in rows {
            match self.take(row) {
                Taken::New => taken += 1,
                Taken::Known => {}
                Taken::Against(alarm) => return Brought { rows: taken, alarm },
            }
        }
        self.gap = None;
        let first = self.state == State::Unread;
        self.state = State::Live;
        // Rows that came ahead before the first read may be of a past that the store has lost: the table is right.
        if first {
            self.forget_ahead_up_to(self.enqueued());
        }
        self.absorb();
        if !full {
            self.check_ahead(ask);
        }
        Brought { rows: taken, alarm: None }
    }

    /// The anchor is not there. That is right where this leader has meanwhile removed it, or where somebody emptied the table.
    fn without_anchor(&mut self, anchor: i64, rows: &[OutboxRow]) -> Option<Brought> {
        if self.stored > anchor || self.storing.is_some_and(|high| high > anchor) {
            self.look = true;
            return Some(Brought::default());
        }
        if self.log.known(anchor).is_some() {
            self.went_back(anchor, "the last known number is gone");
            return Some(Brought::default());
        }
        // The first read of a lease: somebody has emptied the table, and numbers go on where they stood.
        let next = rows.first().map(|row| row.number).filter(|next| *next != anchor + 1)?;
        Some(Brought { rows: 0, alarm: self.damaged(anchor + 1, next) })
    }

    fn take(&mut self, row: OutboxRow) -> Taken {
        let (number, enqueued) = (row.number, self.enqueued());
        if number > enqueued + 1 {
            return Taken::Against(self.damaged(enqueued + 1, number));
        }
        if number == enqueued + 1 {
            self.push(row);
            return Taken::New;
        }
        match self.log.known(number) {
            Some(id) if id != row.event.event_id => {
                self.went_back(number, ANOTHER_EVENT);
                Taken::Against(None)
            }
            Some(_) => Taken::Known,
            None => {
                self.log.learn(number, row.event.event_id);
                Taken::Known
            }
        }
    }

    /// A snapshot that is newer than a commit holds all numbers before it. What came ahead and is not reached is of a store that is no
    /// more.
    fn check_ahead(&mut self, ask: &Ask) {
        let next = self.ahead.first_key_value().map(|(number, _)| *number);
        if let Some(next) = next.filter(|next| *next == ask.span.high && *next > self.enqueued() + 1) {
            self.went_back(next, "numbers before a committed one are gone");
        }
    }

    fn forget_ahead_up_to(&mut self, number: i64) {
        while let Some(entry) = self.ahead.first_entry()
            && *entry.key() <= number
        {
            let row = entry.remove();
            self.bytes = self.bytes.saturating_sub(row.size());
        }
    }

    /// A number is missing. What the store says is stored may be out of date if the lease is lost, so it is asked for anew first.
    fn damaged(&mut self, number: i64, next: i64) -> Option<Alarm> {
        self.lose();
        if self.gap.replace((number, next)) != Some((number, next)) {
            return None;
        }
        self.state = State::Damaged;
        Some(Alarm::Gap { shard: self.number, number, next })
    }
}
