//! Storing the number up to which everything is published.

use minishop_core::ids::EventId;
use minishop_store::Acknowledged;

use super::{Shard, State};

/// The most rows that one `acknowledge` removes.
const MOST_STORED: i64 = 2_000;

impl Shard {
    /// Returns the published numbers that are not stored, if any.
    pub fn to_store(&self) -> Option<Acknowledged> {
        let high = self.log.published().min(self.stored + MOST_STORED);
        if self.state == State::Lost || self.storing.is_some() || high <= self.stored {
            return None;
        }
        let events: Option<Vec<EventId>> = (self.stored + 1..=high).map(|number| self.log.known(number)).collect();
        Some(Acknowledged { shard: self.number, epoch: self.epoch, low: self.stored, events: events? })
    }

    /// Returns how many numbers are published but not stored.
    pub fn unstored(&self) -> i64 {
        self.log.published() - self.stored
    }

    /// Returns whether the lease of a surplus shard may be given back.
    pub fn is_finished(&self) -> bool {
        let is_over = matches!(self.state, State::Lost | State::Damaged);
        self.surplus && (is_over || (self.in_flight == 0 && self.unstored() == 0))
    }

    /// Records that an `acknowledge` up to `high` is running.
    pub fn storing(&mut self, high: i64) {
        self.storing = Some(high);
    }

    /// Takes the answer to `acknowledge`; an answer to an earlier lease is ignored.
    pub fn stored(&mut self, asked: &Acknowledged, agreed: bool) {
        if self.storing != Some(asked.high()) || self.epoch != asked.epoch || self.state == State::Lost {
            return;
        }
        self.storing = None;
        if !agreed {
            return self.went_back(asked.high(), "the store refused the published numbers");
        }
        self.stored = asked.high();
        self.log.forget_before(self.stored);
    }
}
