//! Sending rows, and handling delivery reports.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use minishop_bus::Headers;
use minishop_bus::produce::{Compression, Producer, Report, SendError};
use minishop_contracts::headers::kafka::DLQ_VALUE_OMITTED;
use minishop_contracts::topics;
use minishop_store::OutboxStats;
use tokio::sync::mpsc;

use super::machine::Machine;
use super::messages::{Sending, Trouble};
use super::metrics::RelayMetrics;
use super::shard::Moment;
use crate::ctx::Status;

/// The shortest time between two warnings.
const LOG_AGAIN: Duration = Duration::from_secs(10);

/// The producer and its delivery reports.
pub(super) struct Sender {
    brokers: String,
    compression: Compression,
    producer: Producer,
    /// Reports of `producer`; its owner receives them and passes each to [`Sender::report`].
    pub reports: mpsc::UnboundedReceiver<Report>,
    trouble: TopicTrouble,
    /// The last known backlog.
    backlog: Arc<Mutex<OutboxStats>>,
    status: Status,
    metrics: RelayMetrics,
}

/// A topic that accepts no records, and when that was last logged.
#[derive(Debug, Default)]
struct TopicTrouble {
    at: Option<Moment>,
    unlogged: u64,
    /// The shard that waits for it.
    shard: Option<i16>,
}

impl Sender {
    pub fn new(
        brokers: String,
        compression: Compression,
        backlog: Arc<Mutex<OutboxStats>>,
        status: Status,
        metrics: RelayMetrics,
    ) -> anyhow::Result<Self> {
        let (report_to, reports) = mpsc::unbounded_channel();
        let producer = Producer::new(&brokers, compression, report_to)?;
        let trouble = TopicTrouble::default();
        Ok(Self { brokers, compression, producer, reports, trouble, backlog, status, metrics })
    }

    /// Sends queued rows, shard by shard in order, until the producer's queue is full.
    pub fn send(&mut self, machine: &mut Machine, now: Moment) {
        while let Some(next) = machine.next(now) {
            let (token, letter) = (next.token, is_dead_letter(&next.row.event.topic) && !next.without_value);
            match send_row(&mut self.producer, &next) {
                Ok(()) => machine.sent(token),
                Err(SendError::QueueFull) => return,
                Err(SendError::Fatal(reason)) => return self.fail_producer(machine, &reason, now),
                Err(SendError::TooLarge) if letter => machine.without_value(token, now),
                Err(SendError::TooLarge) => machine.cannot_send(token, "the record is too large".to_owned()),
                Err(SendError::Record(reason)) => machine.cannot_send(token, reason),
                Err(SendError::Topic(reason)) => {
                    let topic = next.row.event.topic.clone();
                    machine.stop(token.shard, now);
                    self.report_topic(token.shard, &topic, &reason, now);
                }
            }
        }
    }

    /// Replaces the producer; rows that are not stored as published are sent again from the table.
    fn renew_producer(&mut self, machine: &mut Machine, now: Moment) {
        // Reports of the old producer must not reach the shards.
        let (report_to, reports) = mpsc::unbounded_channel();
        match Producer::new(&self.brokers, self.compression, report_to) {
            Ok(producer) => {
                std::mem::replace(&mut self.producer, producer).give_up();
                self.reports = reports;
                machine.producer_lost(now);
            }
            Err(error) => tracing::error!("cannot create a producer: {error:#}"),
        }
    }

    /// Handles a delivery report; returns whether the producer was replaced.
    pub fn report(&mut self, report: Report, machine: &mut Machine, now: Moment) -> bool {
        let Report { token, topic, alone, took, result } = report;
        let Err(error) = result else {
            self.metrics.published.inc();
            self.metrics.publish.observe(took.as_secs_f64());
            if self.trouble.shard == Some(token.shard) {
                self.trouble = TopicTrouble::default();
                self.status.note("relay", None);
            }
            machine.report(token, Ok(()), now);
            return false;
        };
        self.metrics.refused.inc();
        let trouble = match error {
            SendError::Fatal(reason) => {
                self.fail_producer(machine, &reason, now);
                return true;
            }
            SendError::TooLarge if is_dead_letter(&topic) => Trouble::TooLarge,
            SendError::TooLarge => Trouble::OfRecord("the record is too large".to_owned()),
            SendError::Record(reason) => Trouble::OfRecord(reason),
            SendError::Topic(reason) => {
                self.report_topic(token.shard, &topic, &reason, now);
                Trouble::OfTopic
            }
            SendError::QueueFull => Trouble::OfTopic,
        };
        machine.report(token, Err(trouble), now);
        // Records behind it must not be published before its retry.
        if !alone {
            tracing::debug!(topic, "a record in a batch failed; sending its records again, one by one");
            self.renew_producer(machine, now);
        }
        !alone
    }

    fn fail_producer(&mut self, machine: &mut Machine, reason: &str, now: Moment) {
        tracing::error!(reason, "the producer failed permanently; creating a new one");
        self.renew_producer(machine, now);
    }

    /// Logs that a topic accepts no records, at most every [`LOG_AGAIN`].
    fn report_topic(&mut self, shard: i16, topic: &str, reason: &str, now: Moment) {
        let waiting = self.backlog.lock().expect("no holder of the statistics panics").depth;
        self.trouble.shard = Some(shard);
        self.status.note("relay", Some(format!("{topic} does not accept records: {reason}; {waiting} outbox rows wait")));
        if self.trouble.at.is_some_and(|at| now < at + LOG_AGAIN) {
            self.trouble.unlogged += 1;
            return;
        }
        tracing::warn!(
            topic,
            reason,
            event.count = waiting,
            unlogged.count = self.trouble.unlogged,
            "a topic does not accept records; its outbox rows wait"
        );
        self.trouble.at = Some(now);
        self.trouble.unlogged = 0;
    }
}

fn is_dead_letter(topic: &str) -> bool {
    topic.ends_with(topics::CREATED_DEAD_LETTERS)
}

/// Queues a row with the producer. A dead letter that the broker refused for its size goes without its value, which stays in the
/// store.
fn send_row(producer: &mut Producer, next: &Sending<'_>) -> Result<(), SendError> {
    let event = &next.row.event;
    if event.brief.is_some() && event.headers.is_empty() {
        return Err(SendError::Record("the order that it is about is gone, or has another event".to_owned()));
    }
    let (mut headers, mut value) = (event.headers.clone(), event.payload.as_ref());
    if next.without_value {
        let bytes = value.take().map_or(0, bytes::Bytes::len);
        headers = Headers::decode(&headers).unwrap_or_default().with(DLQ_VALUE_OMITTED, bytes.to_string()).encode();
    }
    if next.alone {
        producer.send_alone(next.token, &event.topic, &event.record_key, value, &headers)
    } else {
        producer.send(next.token, &event.topic, &event.record_key, value, &headers)
    }
}
