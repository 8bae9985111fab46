//! Reading a shard's rows from the table.
//!
//! Each read starts at the *anchor*, the row with the number `enqueued`. The store keeps that row until a later one is published,
//! so it must be there with the known event id. If it is, the store has not gone back.

use minishop_store::{OutboxRow, Span};

use super::{ANOTHER_EVENT, Alarm, ENOUGH_QUEUED, MOST_BYTES, Shard, State};

/// How many gaps between rows in `ahead` one read fills at most, and how many rows are missing in them.
const MOST_GAPS: usize = 64;
const MOST_MISSING: i64 = 1_000;

/// A requested read of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Ask {
    /// In ascending order. The first one begins with the anchor; rows in `ahead` lie between them.
    pub spans: Vec<Span>,
    /// The number that the first row must have; `None` in an empty shard.
    anchor: Option<i64>,
    view: u64,
    /// Whether rows after the last span are left to a later read.
    leaves_rest: bool,
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
    /// Returns whether rows must be read before anything later is sent.
    pub fn misses(&self) -> bool {
        match self.state {
            State::Unread => true,
            State::Live => self.look || !self.ahead.is_empty(),
            _ => false,
        }
    }

    /// Returns the next read; `None` when enough rows are in memory. With `due`, or after a hint, it goes to the end of the table.
    pub fn ask(&self, due: bool) -> Option<Ask> {
        let span = |low, high| Span { shard: self.number, low, high };
        let ask = |spans: Vec<Span>, anchor, leaves_rest| Some(Ask { spans, anchor, view: self.view, leaves_rest });
        if let (State::Damaged, Some((number, _))) = (self.state, self.gap) {
            return ask(vec![span(number, number + 1)], None, false);
        }
        let anchor = Some(self.enqueued()).filter(|number| *number > 0);
        let low = anchor.unwrap_or(1);
        let full = self.queue.len() >= ENOUGH_QUEUED || self.bytes >= MOST_BYTES;
        match self.state {
            // However many rows are in memory, the anchor must be confirmed before anything is sent.
            State::Unread if full => ask(vec![span(low, low + 1)], anchor, true),
            // Before the first read, rows in `ahead` may be from a history that the store has lost: no gap is known yet.
            State::Unread => {
                let high = self.ahead.first_key_value().map_or(i64::MAX, |(number, _)| *number);
                ask(vec![span(low, high.max(low + 1))], anchor, !self.ahead.is_empty())
            }
            State::Live if !full => {
                let (mut spans, behind) = self.gaps(low);
                let wants_rest = due || self.look || spans.is_empty();
                spans.extend(behind.filter(|_| wants_rest).map(|behind| span(behind, i64::MAX)));
                ask(spans, anchor, wants_rest && behind.is_none())
            }
            _ => None,
        }
    }

    /// The numbers from `low` on that are missing before the rows in `ahead`, and the number behind those rows; `None` if there
    /// are too many gaps for one read.
    fn gaps(&self, mut low: i64) -> (Vec<Span>, Option<i64>) {
        let (mut gaps, mut missing) = (Vec::new(), 0);
        for number in self.ahead.keys() {
            if gaps.len() == MOST_GAPS || missing >= MOST_MISSING {
                return (gaps, None);
            }
            if *number > low {
                missing += number - low;
                gaps.push(Span { shard: self.number, low, high: *number });
            }
            low = number + 1;
        }
        (gaps, Some(low))
    }

    /// Takes the rows of a read, at most `limit` rows of each span.
    pub fn read(&mut self, ask: &Ask, rows: Vec<OutboxRow>, limit: usize) -> Brought {
        if self.state == State::Damaged && ask.view == self.view && !rows.is_empty() {
            // The missing number is there again.
            self.gap = None;
            self.lose();
        }
        if ask.view != self.view || !matches!(self.state, State::Unread | State::Live) {
            return Brought::default();
        }
        self.look = ask.leaves_rest;
        if let Some(anchor) = ask.anchor
            && rows.first().is_none_or(|row| row.number != anchor)
            && let Some(brought) = self.without_anchor(anchor, &rows)
        {
            return brought;
        }
        let (mut taken, mut rows) = (0, rows.into_iter().peekable());
        for (n, span) in ask.spans.iter().enumerate() {
            if n > 0 && span.low > self.enqueued() + 1 {
                // The rows in `ahead` before this gap were dropped meanwhile.
                self.look = true;
                break;
            }
            let mut count = 0;
            while let Some(row) = rows.next_if(|row| row.number < span.high) {
                count += 1;
                match self.take(row) {
                    Taken::New => taken += 1,
                    Taken::Known => {}
                    Taken::Against(alarm) => return Brought { rows: taken, alarm },
                }
            }
            self.gap = None;
            if std::mem::replace(&mut self.state, State::Live) == State::Unread {
                // The store may have lost rows that were handed over before the first read. Reading the table shows which are left.
                self.forget_ahead_up_to(self.enqueued());
            }
            self.absorb();
            let cut_off = count >= limit;
            if !cut_off {
                self.check_ahead(span);
            }
            if cut_off || self.state != State::Live {
                self.look |= self.state == State::Live;
                break;
            }
        }
        Brought { rows: taken, alarm: None }
    }

    /// Handles a missing anchor. It is legitimate if this leader has removed the row meanwhile, or if somebody emptied the table.
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

    /// A snapshot taken after a commit contains all numbers before it. If a complete read ends below the first row in `ahead`,
    /// the store has lost rows.
    fn check_ahead(&mut self, span: &Span) {
        let next = self.ahead.first_key_value().map(|(number, _)| *number);
        if let Some(next) = next.filter(|next| *next == span.high && *next > self.enqueued() + 1) {
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

    /// Handles a missing number. If another process leads, `acknowledged` is out of date: the alarm waits for a new lease.
    fn damaged(&mut self, number: i64, next: i64) -> Option<Alarm> {
        self.lose();
        if self.gap.replace((number, next)) != Some((number, next)) {
            return None;
        }
        self.state = State::Damaged;
        Some(Alarm::Gap { shard: self.number, number, next })
    }
}
