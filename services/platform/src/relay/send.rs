//! Sending rows, and handling delivery reports and alarms.

use std::time::Duration;

use minishop_bus::Headers;
use minishop_bus::produce::{Producer, Report, SendError};
use minishop_contracts::headers::kafka::DLQ_VALUE_OMITTED;
use minishop_contracts::topics;
use tokio::sync::mpsc;

use super::messages::{Aside, Sending, Trouble};
use super::shard::{Alarm, Moment};
use super::task::RelayTask;

/// The shortest time between two warnings.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// A topic that accepts no records, and when that was last logged.
#[derive(Debug, Default)]
pub(super) struct TopicTrouble {
    at: Option<Moment>,
    untold: u64,
    /// The shard that waits for it.
    shard: Option<i16>,
}

impl RelayTask {
    /// Sends queued rows, shard by shard in order, until the producer's queue is full.
    pub(super) fn send(&mut self, now: Moment) {
        while let Some(next) = self.machine.next(now) {
            let (token, letter) = (next.token, is_dead_letter(&next.row.event.topic) && !next.without_value);
            match send_row(&mut self.producer, &next) {
                Ok(()) => self.machine.sent(token),
                Err(SendError::QueueFull) => return,
                Err(SendError::Fatal(reason)) => return self.fail_producer(&reason, now),
                Err(SendError::TooLarge) if letter => self.machine.without_value(token, now),
                Err(SendError::TooLarge) => self.machine.cannot_send(token, "the record is too large".to_owned()),
                Err(SendError::Record(reason)) => self.machine.cannot_send(token, reason),
                Err(SendError::Topic(reason)) => {
                    let topic = next.row.event.topic.clone();
                    self.machine.stop(token.shard, now);
                    self.tell_topic(token.shard, &topic, &reason, now);
                }
            }
        }
    }

    /// Replaces the producer; rows that are not stored as published are sent again from the table.
    fn renew_producer(&mut self, now: Moment) {
        // Reports of the old producer must not reach the shards.
        let (report_to, reports) = mpsc::unbounded_channel();
        match Producer::new(&self.settings.brokers, self.settings.compression, report_to) {
            Ok(producer) => {
                std::mem::replace(&mut self.producer, producer).give_up();
                self.reports = reports;
                self.machine.producer_lost(now);
            }
            Err(error) => tracing::error!("cannot create a producer: {error:#}"),
        }
    }

    /// Handles a delivery report; returns whether the producer was replaced.
    pub(super) fn report(&mut self, report: Report, now: Moment) -> bool {
        let Report { token, topic, alone, took, result } = report;
        let Err(error) = result else {
            self.metrics.published.inc();
            self.metrics.publish.observe(took.as_secs_f64());
            if self.topic_trouble.shard == Some(token.shard) {
                self.topic_trouble = TopicTrouble::default();
                self.status.note("relay", None);
            }
            self.machine.report(token, Ok(()), now);
            return false;
        };
        self.metrics.refused.inc();
        let trouble = match error {
            SendError::Fatal(reason) => {
                self.fail_producer(&reason, now);
                return true;
            }
            SendError::TooLarge if is_dead_letter(&topic) => Trouble::TooLarge,
            SendError::TooLarge => Trouble::OfRecord("the record is too large".to_owned()),
            SendError::Record(reason) => Trouble::OfRecord(reason),
            SendError::Topic(reason) => {
                self.tell_topic(token.shard, &topic, &reason, now);
                Trouble::OfTopic
            }
            SendError::QueueFull => Trouble::OfTopic,
        };
        self.machine.report(token, Err(trouble), now);
        // Records behind it must not be published before its retry.
        if !alone {
            tracing::debug!(topic, "a record in a batch failed; sending its records again, one by one");
            self.renew_producer(now);
        }
        !alone
    }

    fn fail_producer(&mut self, reason: &str, now: Moment) {
        tracing::error!(reason, "the producer failed permanently; creating a new one");
        self.renew_producer(now);
    }

    /// Logs that a topic accepts no records, at most every [`TELL_AGAIN`].
    fn tell_topic(&mut self, shard: i16, topic: &str, reason: &str, now: Moment) {
        let waiting = self.stats.lock().expect("no holder of the statistics panics").depth;
        self.topic_trouble.shard = Some(shard);
        self.status.note("relay", Some(format!("{topic} does not accept records: {reason}; {waiting} outbox rows wait")));
        if self.topic_trouble.at.is_some_and(|at| now < at + TELL_AGAIN) {
            self.topic_trouble.untold += 1;
            return;
        }
        tracing::warn!(
            topic,
            reason,
            rows = waiting,
            untold = self.topic_trouble.untold,
            "a topic does not accept records; its outbox rows wait"
        );
        self.topic_trouble.at = Some(now);
        self.topic_trouble.untold = 0;
    }

    pub(super) fn tell_aside(&mut self, aside: &Aside) {
        self.metrics.set_aside.inc();
        tracing::error!(
            outbox.shard = aside.token.shard,
            outbox.number = aside.token.number,
            event.id = %aside.event_id,
            reason = aside.reason,
            "an event cannot be published and is set aside; later events are still published"
        );
    }

    pub(super) fn tell_alarms(&mut self) {
        if self.damaged && !self.machine.is_damaged() {
            self.damaged = false;
            self.status.set("outbox", Ok(()));
        }
        for alarm in self.machine.alarms.drain(..) {
            match alarm {
                Alarm::WentBack { shard, number, found } => {
                    self.metrics.went_back.inc();
                    tracing::error!(
                        outbox.shard = shard,
                        outbox.number = number,
                        found,
                        "the store went back to an older state; reading the shard again from there"
                    );
                }
                Alarm::Gap { shard, number, next } => {
                    self.metrics.gaps.inc();
                    let lacks =
                        if next - number == 1 { format!("number {number}") } else { format!("numbers {number} to {}", next - 1) };
                    let reason = format!("outbox_gap: shard {shard} lacks {lacks}");
                    tracing::error!(
                        outbox.shard = shard,
                        outbox.number = number,
                        outbox.next = next,
                        "{reason}; the shard sends nothing until its rows are restored or given up: minishop outbox step-over"
                    );
                    self.status.set("outbox", Err(reason));
                    self.damaged = true;
                }
            }
        }
    }
}

fn is_dead_letter(topic: &str) -> bool {
    topic.ends_with(topics::CREATED_DEAD_LETTERS)
}

/// Queues a row with the producer. A dead letter that the broker refused for its size goes without its value, which stays in the
/// store.
fn send_row(producer: &mut Producer, next: &Sending<'_>) -> Result<(), SendError> {
    let event = &next.row.event;
    let mut headers = Headers::decode(event.headers.clone()).unwrap_or_default();
    let mut value = event.payload.as_ref();
    if next.without_value {
        let bytes = value.take().map_or(0, bytes::Bytes::len);
        headers = headers.with(DLQ_VALUE_OMITTED, bytes.to_string());
    }
    if next.alone {
        producer.send_alone(next.token, &event.topic, &event.record_key, value, &headers)
    } else {
        producer.send(next.token, &event.topic, &event.record_key, value, &headers)
    }
}
