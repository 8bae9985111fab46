//! `Produce` and `InitProducerId`.

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{
    InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceResponse, ProducerId, TopicName,
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{Asked, Pending, Unfit, code};
use crate::batch;
use crate::batch::records;
use crate::batch::records::{Bounds, Flaw};
use crate::log::{Append, Command, Control, Produce, Stored};
use crate::shared::Shared;

/// State of one partition of a request: refused, or waiting for the writer's next outcome.
enum Slot {
    Refused(ResponseError),
    Queued { start: i64 },
}

/// Checks every batch, queues the valid ones and returns the pending answer.
pub(super) async fn begin(asked: Asked, request: ProduceRequest, memory: Option<OwnedSemaphorePermit>) -> Result<Pending, Unfit> {
    let refusal = match request.acks {
        _ if request.transactional_id.is_some() => Some(ResponseError::TransactionalIdAuthorizationFailed),
        -1..=1 => None,
        _ => Some(ResponseError::InvalidRequiredAcks),
    };
    let silent = request.acks == 0;
    let mut batches = Vec::new();
    let mut topics = Vec::with_capacity(request.topic_data.len());
    for topic in request.topic_data {
        let mut slots = Vec::with_capacity(topic.partition_data.len());
        for partition in topic.partition_data {
            let bytes = partition.records.unwrap_or_default();
            let checked = match refusal {
                Some(error) => Err(error),
                None => check(&asked.shared, &topic.name, partition.index, bytes).await,
            };
            let slot = match checked {
                Ok(append) => {
                    let start = append.partition.start();
                    batches.push(append);
                    Slot::Queued { start }
                }
                Err(error) => Slot::Refused(error),
            };
            slots.push((partition.index, slot));
        }
        topics.push((topic.name, slots));
    }
    let outcomes = queue(&asked.shared, batches, memory).await;
    Ok(Box::pin(async move {
        let response = response(topics, outcomes.wait().await);
        if !silent {
            return asked.encode(asked.version, &response).map(Some);
        }
        let failed = response.responses.iter().flat_map(|t| &t.partition_responses).any(|p| p.error_code != 0);
        if failed { Err(Unfit::Unanswered) } else { Ok(None) }
    }))
}

async fn check(shared: &Shared, topic: &str, number: i32, bytes: Bytes) -> Result<Append, ResponseError> {
    let unknown = ResponseError::UnknownTopicOrPartition;
    let topic = shared.catalog.get(topic).ok_or(unknown)?;
    let partition = topic.partition(number).ok_or(unknown)?.clone();
    let max = usize::try_from(topic.settings.max_message_bytes).unwrap_or(usize::MAX);
    let header = batch::check(&bytes, max)?;
    walk(shared, &bytes).await?;
    Ok(Append { partition, header, bytes })
}

/// Walks the records. A large batch is walked on a blocking thread, one at a time, which bounds the memory for
/// decompression.
///
/// Unreadable records are reported as invalid, not as corrupt: clients would resend a corrupt message for ever.
async fn walk(shared: &Shared, bytes: &Bytes) -> Result<(), ResponseError> {
    let mut outcome = records::walk(bytes, Bounds::QUICK);
    if outcome == Err(Flaw::Large) {
        let _turn = shared.inflating.lock().await;
        let bytes = bytes.clone();
        let walked = tokio::task::spawn_blocking(move || records::walk(&bytes, Bounds::MOST)).await;
        outcome = walked.map_err(|_| ResponseError::UnknownServerError)?;
    }
    outcome.map_err(|flaw| match flaw {
        Flaw::Unreadable => ResponseError::InvalidRecord,
        Flaw::Large => ResponseError::MessageTooLarge,
    })
}

/// The writer's outcomes for the queued batches, in their order.
struct Outcomes {
    count: usize,
    coming: Option<oneshot::Receiver<Vec<Stored>>>,
}

async fn queue(shared: &Shared, batches: Vec<Append>, memory: Option<OwnedSemaphorePermit>) -> Outcomes {
    let count = batches.len();
    if count == 0 {
        return Outcomes { count, coming: None };
    }
    let (reply, coming) = oneshot::channel();
    let sent = shared.writer.send(Command::Produce(Produce { batches, reply, _memory: memory })).await;
    Outcomes { count, coming: sent.ok().map(|()| coming) }
}

impl Outcomes {
    async fn wait(self) -> Vec<Stored> {
        let lost = || vec![Err(ResponseError::KafkaStorageError); self.count];
        match self.coming {
            Some(coming) => coming.await.unwrap_or_else(|_| lost()),
            None => lost(),
        }
    }
}

fn response(topics: Vec<(TopicName, Vec<(i32, Slot)>)>, outcomes: Vec<Stored>) -> ProduceResponse {
    let mut outcomes = outcomes.into_iter();
    let responses = topics
        .into_iter()
        .map(|(name, slots)| {
            let partitions = slots
                .into_iter()
                .map(|(index, slot)| {
                    let (outcome, start) = match slot {
                        Slot::Refused(error) => (Err(error), -1),
                        Slot::Queued { start } => (outcomes.next().unwrap_or(Err(ResponseError::KafkaStorageError)), start),
                    };
                    PartitionProduceResponse::default()
                        .with_index(index)
                        .with_error_code(code(&outcome))
                        .with_base_offset(outcome.unwrap_or(-1))
                        .with_log_append_time_ms(-1)
                        .with_log_start_offset(start)
                })
                .collect();
            TopicProduceResponse::default().with_name(name).with_partition_responses(partitions)
        })
        .collect();
    ProduceResponse::default().with_responses(responses)
}

/// Returns a producer id that was never used before. Transactions are not supported: a transactional id is refused.
pub(super) async fn init_producer(asked: Asked, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let outcome = if request.transactional_id.is_some() {
        Err(ResponseError::TransactionalIdAuthorizationFailed)
    } else {
        asked.shared.control(|reply| Control::NewProducer { reply }).await
    };
    match outcome {
        Ok(id) => InitProducerIdResponse::default().with_producer_id(ProducerId(id)).with_producer_epoch(0),
        Err(error) => InitProducerIdResponse::default()
            .with_error_code(error.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1),
    }
}
