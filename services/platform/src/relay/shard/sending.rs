//! Sending a shard's rows, and their delivery reports.
//!
//! When a batch fails, the producer fails all later records too, so that none overtakes. The records that were in flight are then
//! sent *alone*: each in a batch of its own, after the report of the one before.

use minishop_bus::produce::Token;

#[cfg(test)]
use super::Sabotage;
use super::{Moment, OutboxRow, Shard, State};
use crate::relay::messages::Sending;

impl Shard {
    /// Returns the next row to send.
    pub fn next(&self, now: Moment) -> Option<Sending<'_>> {
        if self.state != State::Live || self.surplus || now >= self.lease_until {
            return None;
        }
        let row = self.queue.front()?;
        let alone = row.number <= self.alone_up_to;
        if self.in_flight > 0 && (alone || self.alone) {
            return None;
        }
        let token = Token { shard: self.number, number: row.number, generation: self.generation };
        Some(Sending { token, row, without_value: self.without_value.contains(&row.number), alone })
    }

    /// Returns whether a failure reported now is the record's own: it was sent alone.
    pub fn is_alone(&self, number: i64) -> bool {
        !matches!(self.state, State::Stopped(_)) && number <= self.alone_up_to
    }

    /// Sends all records in flight again, each alone, after a batch failed or a topic refused a record. Any record of the batch
    /// may be the cause, and none may overtake another.
    pub fn doubt(&mut self, until: Moment) {
        if matches!(self.state, State::Live | State::Unread) {
            let sent = self.queue.front().map_or(self.enqueued(), |row| row.number - 1);
            self.alone_up_to = self.alone_up_to.max(sent);
        }
        self.stop(until);
    }

    /// Counts the next row as in flight: the producer accepted it.
    pub fn sent(&mut self) {
        if let Some(row) = self.take_next() {
            self.in_flight += 1;
            self.alone = row.number <= self.alone_up_to;
            #[cfg(test)]
            if self.sabotage == Some(Sabotage::AcknowledgeBeforeTheReport) {
                self.log.publish(row.number);
            }
            drop(row);
        }
    }

    /// Removes the next row from the queue.
    pub fn take_next(&mut self) -> Option<OutboxRow> {
        let row = self.queue.pop_front()?;
        self.bytes = self.bytes.saturating_sub(row.size());
        Some(row)
    }

    /// Returns whether a report belongs to this generation.
    pub fn is_current(&self, token: Token) -> bool {
        token.generation == self.generation && self.state != State::Lost
    }

    /// Marks a record of this generation as published.
    pub fn published(&mut self, number: i64) {
        self.returned();
        self.log.publish(number);
        self.without_value.remove(&number);
    }

    /// Counts a report of this generation.
    pub fn returned(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.alone &= self.in_flight > 0;
    }

    /// Counts a row as published that the store has set aside.
    pub fn set_aside(&mut self, number: i64) {
        self.log.publish(number);
    }

    /// Stops sending until all reports are in. Queued rows are dropped; the table has them.
    pub fn stop(&mut self, until: Moment) {
        if matches!(self.state, State::Live | State::Unread | State::Stopped(_)) {
            self.queue.clear();
            self.ahead.clear();
            self.bytes = 0;
            let until = if let State::Stopped(other) = self.state { until.max(other) } else { until };
            self.state = State::Stopped(until);
        }
    }

    /// Stops after a change of producer: no more reports come.
    pub fn producer_lost(&mut self, now: Moment) {
        (self.in_flight, self.alone) = (0, false);
        self.stop(now);
    }
}
