//! Callbacks of librdkafka: rebalances, statistics, commit results and its log.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Statistics, TopicPartitionList};

use super::{Handlers, Partition, list, record};

/// How far the client has read a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// The offset to fetch next.
    pub next: i64,
    /// The end offset of the log; below 0 while unknown.
    pub end: i64,
    /// Records fetched but not delivered.
    pub queued: i64,
}

/// The number of statistics, and the last one of each partition.
pub(super) type Reaches = (u64, HashMap<(String, i32), Reach>);

/// The consumer's callbacks. All but the log run on the polling thread.
pub(super) struct Callbacks {
    handlers: Handlers,
    topics: Vec<Arc<str>>,
    reaches: Mutex<Reaches>,
    commit_failed: AtomicBool,
}

impl Callbacks {
    pub(super) fn new(handlers: Handlers, topics: &[String]) -> Self {
        Self {
            handlers,
            topics: topics.iter().map(|t| Arc::from(t.as_str())).collect(),
            reaches: Mutex::default(),
            commit_failed: AtomicBool::new(false),
        }
    }

    pub(super) fn topics(&self) -> &[Arc<str>] {
        &self.topics
    }

    pub(super) fn reaches(&self) -> Reaches {
        self.reaches.lock().expect("no holder of the offsets panics").clone()
    }

    pub(super) fn commit_failed(&self) -> bool {
        self.commit_failed.swap(false, Ordering::Relaxed)
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, coming: &TopicPartitionList) -> KafkaResult<()> {
        (self.handlers.assigned)(&record::partitions(coming, &self.topics));
        consumer.incremental_assign(coming)
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, going: &TopicPartitionList) -> KafkaResult<()> {
        let partitions = record::partitions(going, &self.topics);
        if consumer.assignment_lost() {
            (self.handlers.lost)(&partitions);
        } else {
            let settled = (self.handlers.revoked)(&partitions);
            if !settled.is_empty()
                && let Err(error) = list(&settled).and_then(|settled| Ok(consumer.commit(&settled, CommitMode::Sync)?))
            {
                // The next owner reads these events again and finds them settled.
                tracing::warn!(%error, "cannot commit the last offsets of revoked partitions; their events are read again");
            }
        }
        let mut reaches = self.reaches.lock().expect("no holder of the offsets panics");
        reaches.1.retain(|(topic, n), _| !partitions.iter().any(|p| *p.topic == **topic && p.partition == *n));
        drop(reaches);
        consumer.incremental_unassign(going)
    }
}

impl ClientContext for Callbacks {
    fn stats(&self, statistics: Statistics) {
        let mut reaches = self.reaches.lock().expect("no holder of the offsets panics");
        reaches.0 += 1;
        for (topic, of_topic) in statistics.topics {
            for (n, partition) in of_topic.partitions {
                if n >= 0 {
                    let reach = Reach { next: partition.next_offset, end: partition.hi_offset, queued: partition.fetchq_cnt };
                    reaches.1.insert((topic.clone(), n), reach);
                }
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka reports an error");
    }
}

impl ConsumerContext for Callbacks {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, what: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let outcome = match what {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, partitions),
            _ => self.revoke(consumer, partitions),
        };
        if let Err(error) = outcome {
            tracing::error!(%error, "cannot apply a partition assignment");
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            self.commit_failed.store(true, Ordering::Relaxed);
            tracing::debug!(%error, "an offset commit failed; the next commit covers it");
        }
    }
}

impl Partition {
    /// Builds a partition that shares the topic's name.
    pub(super) fn shared(topics: &[Arc<str>], topic: &str, partition: i32) -> Self {
        let topic = topics.iter().find(|t| ***t == *topic).cloned().unwrap_or_else(|| Arc::from(topic));
        Self { topic, partition }
    }
}
