//! What librdkafka calls back: rebalances, statistics, commit results and its log.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, Statistics, TopicPartitionList};

use super::{Assigned, Handlers, Partition, list, record};

/// How long an assignment waits for the group's committed offsets.
const COMMITTED_WAIT: Duration = Duration::from_secs(3);

/// The consumer's callbacks. All but the log run on the polling thread.
pub(super) struct Callbacks {
    handlers: Handlers,
    topics: Vec<Arc<str>>,
    ends: Mutex<HashMap<(String, i32), i64>>,
}

impl Callbacks {
    pub(super) fn new(handlers: Handlers, topics: &[String]) -> Self {
        Self { handlers, topics: topics.iter().map(|t| Arc::from(t.as_str())).collect(), ends: Mutex::default() }
    }

    pub(super) fn topics(&self) -> &[Arc<str>] {
        &self.topics
    }

    pub(super) fn ends(&self) -> HashMap<(String, i32), i64> {
        self.ends.lock().expect("no holder of the end offsets panics").clone()
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, coming: &TopicPartitionList) -> KafkaResult<()> {
        let partitions = record::partitions(coming, &self.topics);
        let committed = if partitions.is_empty() {
            Vec::new()
        } else {
            match consumer.committed_offsets(coming.clone(), COMMITTED_WAIT) {
                Ok(list) => record::positions(&list),
                Err(error) => {
                    tracing::warn!(%error, "the group's committed offsets cannot be read now");
                    Vec::new()
                }
            }
        };
        let assigned: Vec<_> = partitions
            .into_iter()
            .map(|partition| {
                let known = committed.iter().find(|p| p.partition == partition.partition && *p.topic == *partition.topic);
                Assigned { committed: known.map(|p| p.next_offset), partition }
            })
            .collect();
        let mut start = coming.clone();
        for elsewhere in (self.handlers.assigned)(&assigned) {
            start.set_partition_offset(&elsewhere.topic, elsewhere.partition, Offset::Offset(elsewhere.next_offset))?;
        }
        consumer.incremental_assign(&start)
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
                // The next owner reads these events once more and finds them settled.
                tracing::warn!(%error, "the last offsets of revoked partitions were not committed");
            }
        }
        let mut ends = self.ends.lock().expect("no holder of the end offsets panics");
        ends.retain(|(topic, n), _| !partitions.iter().any(|p| *p.topic == **topic && p.partition == *n));
        drop(ends);
        consumer.incremental_unassign(going)
    }
}

impl ClientContext for Callbacks {
    fn stats(&self, statistics: Statistics) {
        let mut ends = self.ends.lock().expect("no holder of the end offsets panics");
        for (topic, of_topic) in statistics.topics {
            for (n, partition) in of_topic.partitions {
                if n >= 0 && partition.hi_offset >= 0 {
                    ends.insert((topic.clone(), n), partition.hi_offset);
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
            tracing::error!(%error, "an assignment could not be followed");
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(%error, "an offset commit failed; the next one makes it good");
        }
    }
}

impl Partition {
    /// Names the partitions of a list with the topics' shared names.
    pub(super) fn shared(topics: &[Arc<str>], topic: &str, partition: i32) -> Self {
        let topic = topics.iter().find(|t| ***t == *topic).cloned().unwrap_or_else(|| Arc::from(topic));
        Self { topic, partition }
    }
}
