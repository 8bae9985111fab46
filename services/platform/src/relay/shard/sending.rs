//! Sending a shard's rows, and what becomes of them.
//!
//! The producer gives up for good after a failure among records in flight, so that nothing goes past them; they are then sent one
//! by one, each only when the one before has been reported.

#[cfg(test)]
use super::Sabotage;
use super::{Moment, OutboxRow, Shard, State, Token};
use crate::relay::said::Sending;

impl Shard {
    /// The next row to send.
    pub fn next(&self, now: Moment) -> Option<Sending<'_>> {
        if self.state != State::Live || now >= self.lease_until {
            return None;
        }
        let row = self.queue.front()?;
        let alone = row.number <= self.alone_up_to;
        if self.in_flight > 0 && (alone || self.alone) {
            return None;
        }
        let token = Token { shard: self.number, number: row.number, life: self.life };
        Some(Sending { token, row, without_value: self.without_value.contains(&row.number), alone })
    }

    /// Tells whether what is reported of a record now is true of it alone.
    pub fn is_alone(&self, number: i64) -> bool {
        !matches!(self.state, State::Stopped(_)) && number <= self.alone_up_to
    }

    /// A record failed. What is in flight is sent again, each record alone: a failure tells nothing of the others of its batch,
    /// and nothing may overtake a record that is sent again.
    pub fn doubt(&mut self, until: Moment) {
        if matches!(self.state, State::Live | State::Unread) {
            let sent = self.queue.front().map_or(self.enqueued(), |row| row.number - 1);
            self.alone_up_to = self.alone_up_to.max(sent);
        }
        self.stop(until);
    }

    /// Notes that the next row is with the producer.
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

    /// Takes the next row out: it is sent, or set aside.
    pub fn take_next(&mut self) -> Option<OutboxRow> {
        let row = self.queue.pop_front()?;
        self.bytes = self.bytes.saturating_sub(row.size());
        Some(row)
    }

    /// Tells whether a report is about this life.
    pub fn is_current(&self, token: Token) -> bool {
        token.life == self.life && self.state != State::Lost
    }

    /// Notes that a record of this life is published.
    pub fn published(&mut self, number: i64) {
        self.returned();
        self.log.publish(number);
        self.without_value.remove(&number);
    }

    /// Notes that a record of this life came back.
    pub fn returned(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.alone &= self.in_flight > 0;
    }

    /// Notes that the store keeps a row that cannot be published: it counts as published.
    pub fn set_aside(&mut self, number: i64) {
        self.log.publish(number);
    }

    /// Stops sending until all reports are in; what is queued stands in the table.
    pub fn stop(&mut self, until: Moment) {
        if matches!(self.state, State::Live | State::Unread | State::Stopped(_)) {
            self.queue.clear();
            self.ahead.clear();
            self.bytes = 0;
            let until = if let State::Stopped(other) = self.state { until.max(other) } else { until };
            self.state = State::Stopped(until);
        }
    }

    /// The producer is gone: no more reports come.
    pub fn producer_lost(&mut self, now: Moment) {
        (self.in_flight, self.alone) = (0, false);
        self.stop(now);
    }
}
