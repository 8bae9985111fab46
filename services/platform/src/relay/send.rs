//! Sending, and what the broker reports.

use std::collections::HashMap;
use std::time::Duration;

use minishop_contracts::headers::kafka::DLQ_VALUE_OMITTED;
use minishop_contracts::topics;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::shard::{Shard, State};
use super::task::RelayTask;
use crate::bus::Headers;
use crate::bus::produce::{Producer, Report, SendError};
use crate::store::OutboxRow;

/// Records that the producer may hold unreported; its own queue holds 10 000.
const MOST_IN_FLIGHT: usize = 8_000;
/// How long a shard rests after a record was refused.
const REST: Duration = Duration::from_millis(200);

impl RelayTask {
    /// Sends queued rows, shard by shard in order, as far as the producer has room.
    pub(super) fn send(&mut self, now: Instant) {
        let again = now + REST;
        let mut fatal = None;
        'shards: for (number, led) in &mut self.shards {
            if !matches!(led.state, State::Live | State::Behind) || now >= led.lease_until {
                continue;
            }
            while let Some(row) = led.queue.front() {
                if self.in_flight >= MOST_IN_FLIGHT {
                    break 'shards;
                }
                match send_row(&self.producer, row, led.too_large.contains(&row.id)) {
                    Ok(()) => {
                        led.queue.pop_front();
                        led.in_flight += 1;
                        self.in_flight += 1;
                    }
                    Err(SendError::QueueFull) => break 'shards,
                    Err(SendError::Fatal(reason)) => {
                        fatal = Some(reason);
                        break 'shards;
                    }
                    Err(SendError::TooLarge) if is_dead_letter(row) && led.too_large.insert(row.id) => {}
                    Err(SendError::TooLarge | SendError::Refused(_)) => {
                        tracing::warn!(
                            outbox.shard = *number,
                            outbox.id = row.id,
                            "a record was refused; its shard is read again"
                        );
                        led.stop(again);
                        break;
                    }
                }
            }
            if led.state == State::Behind && led.queue.is_empty() {
                led.state = State::Load;
            }
        }
        if let Some(reason) = fatal {
            self.renew_producer(&reason);
        }
    }

    /// Makes a new producer after a fatal error; everything that was not deleted is sent again from the table.
    fn renew_producer(&mut self, reason: &str) {
        tracing::error!(reason, "the producer failed for good; making a new one");
        // Reports of the old producer must not be counted against the new shards.
        let (report_to, reports) = mpsc::unbounded_channel();
        match Producer::new(&self.settings.brokers, self.settings.compression, report_to) {
            Ok(producer) => {
                self.producer = producer;
                self.reports = reports;
                self.in_flight = 0;
                let until: HashMap<i16, Instant> = self.shards.iter().map(|(shard, led)| (*shard, led.lease_until)).collect();
                self.shards = until.into_iter().map(|(shard, until)| (shard, Shard::won(until))).collect();
            }
            Err(error) => tracing::error!("cannot make a producer: {error:#}"),
        }
    }

    /// Takes up a report; tells whether it was the end of its producer.
    pub(super) fn report(&mut self, report: Report) -> bool {
        let (number, id) = report.token;
        self.in_flight = self.in_flight.saturating_sub(1);
        if report.result.is_ok() {
            self.metrics.published.inc();
            self.metrics.publish.observe(report.took.as_secs_f64());
        } else {
            self.metrics.refused.inc();
        }
        let Some(led) = self.shards.get_mut(&number) else {
            // The shard was given back meanwhile; deleting a delivered row is right whoever does it.
            if report.result.is_ok() {
                self.deletes.push(report.token);
            }
            return false;
        };
        match report.result {
            Ok(()) => self.deletes.extend(led.delivered(id).map(|id| (number, id))),
            Err(error) => {
                tracing::warn!(outbox.shard = number, outbox.id = id, %error, "a record was not published; it is sent again");
                if error == SendError::TooLarge {
                    led.too_large.insert(id);
                }
                led.failed(id, Instant::now() + REST);
                if let SendError::Fatal(reason) = error {
                    self.renew_producer(&reason);
                    return true;
                }
            }
        }
        false
    }

    pub(super) fn mend(&mut self, now: Instant) {
        for (number, led) in &mut self.shards {
            if let Some(done) = led.mend(now) {
                self.deletes.extend(done.into_iter().map(|id| (*number, id)));
            }
        }
    }
}

fn is_dead_letter(row: &OutboxRow) -> bool {
    row.event.topic.ends_with(topics::CREATED_DEAD_LETTERS)
}

/// Queues a row with the producer; a dead letter that the broker refused for its size goes without its value, which stays in the
/// store.
fn send_row(producer: &Producer, row: &OutboxRow, too_large: bool) -> Result<(), SendError> {
    let mut headers = Headers::decode(row.event.headers.clone()).unwrap_or_default();
    let mut value = row.event.payload.as_ref();
    if too_large && is_dead_letter(row) {
        let bytes = value.take().map_or(0, bytes::Bytes::len);
        headers = headers.with(DLQ_VALUE_OMITTED, bytes.to_string());
    }
    producer.send((row.event.shard, row.id), &row.event.topic, &row.event.record_key, value, &headers)
}
