//! Reading a shard's rows from the table.
//!
//! Each read starts at the *anchor*, the row with the number `enqueued`. The store keeps that row until a later one is published, so it
//! must be there with the known event id. If it is, the store has not gone back.

use super::{ANOTHER_EVENT, Alarm, ENOUGH_QUEUED, MOST_BYTES, Shard, State};
use crate::store::{OutboxRow, Span};

/// A requested read of one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Ask {
    pub span: Span,
    /// The number that the first row must have; `None` in an empty shard.
    anchor: Option<i64>,
    view: u64,
}

/// How a row of the table compares with what is known.
enum Taken {
    New,
    Known,
    /// It contradicts the known rows.
    Against(Option<Alarm>),
}

/// The result of a read of one shard.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Brought {
    /// How many rows are new.
    pub rows: usize,
    pub alarm: Option<Alarm>,
}

impl Shard {
    /// Whether rows must be read before anything later is sent.
    pub fn misses(&self) -> bool {
        match self.state {
            State::Unread => true,
            State::Live => self.look || !self.ahead.is_empty(),
            _ => false,
        }
    }

    /// The next read; `None` when enough rows are in memory.
    pub fn ask(&self) -> Option<Ask> {
        if let (State::Damaged, Some((number, _))) = (self.state, self.gap) {
            let span = Span { shard: self.number, low: number, high: number + 1 };
            return Some(Ask { span, anchor: None, view: self.view });
        }
        let anchor = Some(self.enqueued()).filter(|number| *number > 0);
        let low = anchor.unwrap_or(1);
        let full = self.queue.len() >= ENOUGH_QUEUED || self.bytes >= MOST_BYTES;
        let high = match self.state {
            // However many rows are in memory, the anchor must be confirmed before anything is sent.
            State::Unread if full => low,
            // Only the missing rows, if `ahead` shows which.
            State::Unread | State::Live if !full => self.ahead.first_key_value().map_or(i64::MAX, |(number, _)| *number),
            _ => return None,
        };
        Some(Ask { span: Span { shard: self.number, low, high: high.max(low + 1) }, anchor, view: self.view })
    }

    /// Takes the rows of a read; `full` means that there may be more.
    pub fn read(&mut self, ask: &Ask, rows: Vec<OutboxRow>, full: bool) -> Brought {
        if self.state == State::Damaged && ask.view == self.view && !rows.is_empty() {
            // The missing number is there again.
            self.gap = None;
            self.lose();
        }
        if ask.view != self.view || !matches!(self.state, State::Unread | State::Live) {
            return Brought::default();
        }
        // A read of the anchor alone does not show what follows.
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
        // Rows handed over before the first read may have been lost by the store: the table decides.
        if first {
            self.forget_ahead_up_to(self.enqueued());
        }
        self.absorb();
        if !full {
            self.check_ahead(ask);
        }
        Brought { rows: taken, alarm: None }
    }

    /// The anchor is missing. That is legitimate if this leader has removed it meanwhile, or if somebody emptied the table.
    fn without_anchor(&mut self, anchor: i64, rows: &[OutboxRow]) -> Option<Brought> {
        if self.stored > anchor || self.storing.is_some_and(|high| high > anchor) {
            self.look = true;
            return Some(Brought::default());
        }
        if self.log.known(anchor).is_some() {
            self.went_back(anchor, "the last known number is gone");
            return Some(Brought::default());
        }
        // The first read of a lease: somebody has emptied the table, and numbers continue after `acknowledged`.
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

    /// A snapshot taken after a commit holds all numbers before it. If a row in `ahead` is not reached by a complete read, the store has
    /// lost it.
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

    /// A number is missing. Our `acknowledged` is out of date if another process leads, so the lease is taken again before the alarm.
    fn damaged(&mut self, number: i64, next: i64) -> Option<Alarm> {
        self.lose();
        if self.gap.replace((number, next)) != Some((number, next)) {
            return None;
        }
        self.state = State::Damaged;
        Some(Alarm::Gap { shard: self.number, number, next })
    }
}
