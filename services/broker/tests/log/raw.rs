//! A client that sends exactly what it is given: requests of any version, and bytes that are not a request.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, FetchRequest, FetchResponse, InitProducerIdRequest, MetadataRequest, ProduceRequest,
    ProduceResponse, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use uuid::Uuid;

/// Timeout of every answer.
const PATIENCE: Duration = Duration::from_secs(5);

pub struct Raw {
    stream: TcpStream,
    correlation: i32,
}

impl Raw {
    pub async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, correlation: 0 }
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        // A broker that has already closed may reset; what counts is what can be read afterwards.
        let _ = self.stream.write_all(bytes).await;
    }

    /// Sends a request without reading its answer.
    pub async fn send<Q: Request>(&mut self, version: i16, request: &Q) {
        self.correlation += 1;
        let frame = frame(self.correlation, version, request);
        self.stream.write_all(&frame).await.unwrap();
    }

    /// Reads the next answer, which must be to the request `correlation`.
    pub async fn receive<R: Decodable + HeaderVersion>(&mut self, correlation: i32, version: i16) -> R {
        let mut answer = timeout(PATIENCE, self.read_frame()).await.expect("no answer in time").expect("closed");
        let header = ResponseHeader::decode(&mut answer, R::header_version(version)).unwrap();
        assert_eq!(header.correlation_id, correlation, "answers come in the order of the requests");
        let response = R::decode(&mut answer, version).unwrap();
        assert!(answer.is_empty(), "the answer has more bytes than its version");
        response
    }

    /// Reads the next answer, or `None` when the broker closed instead.
    pub async fn receive_or_closed<R: Decodable + HeaderVersion>(&mut self, version: i16) -> Option<R> {
        let mut answer = timeout(PATIENCE, self.read_frame()).await.expect("no answer in time")?;
        ResponseHeader::decode(&mut answer, R::header_version(version)).unwrap();
        Some(R::decode(&mut answer, version).unwrap())
    }

    pub async fn call<Q: Request>(&mut self, version: i16, request: &Q) -> Q::Response {
        self.send(version, request).await;
        self.receive(self.correlation, version).await
    }

    pub async fn read_frame(&mut self) -> Option<Bytes> {
        let size = self.stream.read_u32().await.ok()?;
        let mut frame = vec![0; usize::try_from(size).unwrap()];
        self.stream.read_exact(&mut frame).await.ok()?;
        Some(frame.into())
    }

    /// Returns whether the broker closes within `time` without sending a byte.
    pub async fn closes_within(&mut self, time: Duration) -> bool {
        matches!(timeout(time, self.stream.read_u8()).await, Ok(Err(_)))
    }

    /// Returns whether nothing arrives for `time` while the connection stays open.
    pub async fn stays_silent(&mut self, time: Duration) -> bool {
        timeout(time, self.stream.read_u8()).await.is_err()
    }

    /// Sends a valid request and requires its answer.
    pub async fn still_works(&mut self) {
        let answer = self.call(3, &ApiVersionsRequest::default()).await;
        assert_eq!(answer.error_code, 0);
    }

    /// Sends a valid request; returns whether it is answered, and not by the end of the connection.
    pub async fn is_served(&mut self) -> bool {
        let request = frame(1, 3, &ApiVersionsRequest::default());
        self.send_bytes(&request).await;
        self.receive_or_closed::<ApiVersionsResponse>(3).await.is_some_and(|answer| answer.error_code == 0)
    }

    /// Returns a new producer id.
    pub async fn new_producer(&mut self) -> i64 {
        let request = InitProducerIdRequest::default().with_transactional_id(None);
        let answer = self.call(4, &request).await;
        assert_eq!((answer.error_code, answer.producer_epoch), (0, 0));
        answer.producer_id.0
    }

    /// Returns all topics, sorted by name.
    pub async fn topics(&mut self) -> Vec<MetadataResponseTopic> {
        self.call(12, &MetadataRequest::default().with_topics(None)).await.topics
    }

    /// Returns the id of the only topic.
    pub async fn topic_id(&mut self) -> Uuid {
        let topics = self.topics().await;
        assert_eq!(topics.len(), 1);
        topics[0].topic_id
    }

    pub async fn produce(&mut self, topic: &str, partition: i32, records: Bytes) -> PartitionProduceResponse {
        let answer = self.call(9, &produce(topic, vec![(partition, records)], -1)).await;
        partitions(answer).remove(0)
    }

    pub async fn fetch(&mut self, topic: &str, partition: i32, offset: i64) -> PartitionData {
        let answer = self.call(12, &fetch(topic, &[(partition, offset)])).await;
        fetched(answer).remove(0)
    }
}

/// Returns one frame with its length prefix.
pub fn frame<Q: Request>(correlation: i32, version: i16, request: &Q) -> Bytes {
    let header = RequestHeader::default()
        .with_request_api_key(Q::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(StrBytes::from_static_str("raw")));
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    header.encode(&mut frame, Q::header_version(version)).unwrap();
    request.encode(&mut frame, version).unwrap();
    let size = i32::try_from(frame.len() - 4).unwrap();
    frame[..4].copy_from_slice(&size.to_be_bytes());
    frame.freeze()
}

pub fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

pub fn produce(topic: &str, partitions: Vec<(i32, Bytes)>, acks: i16) -> ProduceRequest {
    let data = |(index, records)| PartitionProduceData::default().with_index(index).with_records(Some(records));
    ProduceRequest::default().with_acks(acks).with_timeout_ms(1000).with_topic_data(vec![
        TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(partitions.into_iter().map(data).collect()),
    ])
}

pub fn partitions(answer: ProduceResponse) -> Vec<PartitionProduceResponse> {
    answer.responses.into_iter().flat_map(|topic| topic.partition_responses).collect()
}

/// Returns a fetch that does not wait, up to 1 MB for each partition and in total.
pub fn fetch(topic: &str, partitions: &[(i32, i64)]) -> FetchRequest {
    let ask = |(partition, offset): &(i32, i64)| {
        FetchPartition::default().with_partition(*partition).with_fetch_offset(*offset).with_partition_max_bytes(1_000_000)
    };
    FetchRequest::default().with_max_wait_ms(0).with_min_bytes(1).with_max_bytes(1_000_000).with_topics(vec![
        FetchTopic::default().with_topic(topic_name(topic)).with_partitions(partitions.iter().map(ask).collect()),
    ])
}

pub fn fetched(answer: FetchResponse) -> Vec<PartitionData> {
    answer.responses.into_iter().flat_map(|topic| topic.partitions).collect()
}
