//! The event under each number, and whether it is published.

use std::collections::VecDeque;

use minishop_core::ids::EventId;

/// How many stored numbers are remembered, to distinguish a late hand-over from a store that went back.
const REMEMBERED: i64 = 1_024;

#[derive(Debug, Clone, Copy)]
struct Entry {
    event_id: EventId,
    published: bool,
}

/// The numbers of one generation of a shard, without gaps.
#[derive(Debug)]
pub(super) struct Log {
    /// The number of the first entry.
    first: i64,
    entries: VecDeque<Entry>,
    /// Everything up to here is published.
    published: i64,
}

impl Log {
    /// Starts after a number up to which everything is published.
    pub fn at(published: i64) -> Self {
        Self { first: published + 1, entries: VecDeque::new(), published }
    }

    pub fn last(&self) -> i64 {
        self.first + i64::try_from(self.entries.len()).expect("fewer than 2^63 entries") - 1
    }

    pub fn published(&self) -> i64 {
        self.published
    }

    pub fn known(&self, number: i64) -> Option<EventId> {
        self.at_number(number).map(|entry| entry.event_id)
    }

    fn at_number(&self, number: i64) -> Option<&Entry> {
        self.entries.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    pub fn push(&mut self, event_id: EventId, published: bool) {
        self.entries.push_back(Entry { event_id, published });
        self.advance();
    }

    /// Remembers the event under the number before the first entry; an earlier leader published it.
    pub fn learn(&mut self, number: i64, event_id: EventId) {
        if number == self.first - 1 && number <= self.published {
            self.entries.push_front(Entry { event_id, published: true });
            self.first = number;
        }
    }

    pub fn publish(&mut self, number: i64) {
        let place = number.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        if let Some(entry) = place.and_then(|place| self.entries.get_mut(place)) {
            entry.published = true;
            self.advance();
        }
    }

    fn advance(&mut self) {
        while self.at_number(self.published + 1).is_some_and(|entry| entry.published) {
            self.published += 1;
        }
    }

    /// Forgets everything after the first number that is not published.
    pub fn cut_to_published(&mut self) {
        let kept = usize::try_from(self.published + 1 - self.first).unwrap_or(0);
        self.entries.truncate(kept);
    }

    /// Forgets stored numbers, except the last [`REMEMBERED`].
    pub fn forget_before(&mut self, stored: i64) {
        while self.first < stored - REMEMBERED && self.entries.len() > 1 {
            self.entries.pop_front();
            self.first += 1;
        }
    }
}
