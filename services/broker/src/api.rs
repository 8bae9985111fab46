//! The supported requests and versions, and the way from a frame to its answer.

mod admin;
mod committed;
mod fetch;
mod forget;
mod groups;
mod metadata;
mod offsets;
mod produce;
mod shape;
mod versions;

use std::fmt::Display;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use tokio::sync::OwnedSemaphorePermit;

use crate::shared::Shared;

/// Supported versions of each API. Newer ones bring features that this log does not have (replica directories, broker
/// fencing, the new group protocol, share groups, two-phase transactions). Not supported are `CreatePartitions`, because a
/// key's records would continue in another partition and lose their order, and `DescribeLogDirs`, because there are none.
const VERSIONS: [(ApiKey, i16, i16); 22] = [
    (ApiKey::Produce, 3, 11),
    (ApiKey::Fetch, 4, 16),
    (ApiKey::ListOffsets, 1, 8),
    (ApiKey::Metadata, 0, 13),
    (ApiKey::OffsetCommit, 2, 9),
    (ApiKey::OffsetFetch, 1, 9),
    (ApiKey::FindCoordinator, 0, 4),
    (ApiKey::JoinGroup, 2, 9),
    (ApiKey::Heartbeat, 0, 4),
    (ApiKey::LeaveGroup, 0, 5),
    (ApiKey::SyncGroup, 0, 5),
    (ApiKey::DescribeGroups, 0, 6),
    (ApiKey::ListGroups, 0, 5),
    (ApiKey::DeleteGroups, 0, 2),
    (ApiKey::OffsetDelete, 0, 0),
    (ApiKey::ApiVersions, 0, 4),
    (ApiKey::CreateTopics, 2, 7),
    (ApiKey::DeleteTopics, 1, 6),
    (ApiKey::DeleteRecords, 0, 2),
    (ApiKey::InitProducerId, 0, 4),
    (ApiKey::DescribeConfigs, 1, 4),
    (ApiKey::DescribeCluster, 0, 1),
];

/// Why a request gets no answer and its connection ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("unknown API key {0}")]
    Api(i16),
    #[error("{0:?} version {1} is not supported")]
    Version(ApiKey, i16),
    #[error("cannot parse the request: {0}")]
    Malformed(String),
    #[error("a produce request with acks 0 failed")]
    Unanswered,
    #[error("cannot encode the response: {0}")]
    Answer(String),
}

/// An encoded answer with its length prefix, and its share of the memory budget.
#[derive(Debug)]
pub(crate) struct Reply {
    pub bytes: Bytes,
    pub memory: Option<OwnedSemaphorePermit>,
}

/// A pending answer; `None` if the client wants none.
pub(crate) type Pending = Pin<Box<dyn Future<Output = Result<Option<Reply>, Unfit>> + Send>>;

/// The sender and version of a request.
#[derive(Clone)]
pub(crate) struct Asked {
    pub shared: Arc<Shared>,
    pub version: i16,
    pub client_id: StrBytes,
    pub client_host: String,
    correlation: i32,
}

impl Asked {
    fn encode<R: Encodable + HeaderVersion>(&self, version: i16, response: &R) -> Result<Reply, Unfit> {
        let written = |e: &dyn Display| Unfit::Answer(e.to_string());
        let size = response.compute_size(version).map_err(|e| written(&e))?;
        let mut buffer = BytesMut::with_capacity(size + 16);
        buffer.put_i32(0);
        ResponseHeader::default()
            .with_correlation_id(self.correlation)
            .encode(&mut buffer, R::header_version(version))
            .map_err(|e| written(&e))?;
        response.encode(&mut buffer, version).map_err(|e| written(&e))?;
        let length = i32::try_from(buffer.len() - 4).map_err(|e| written(&e))?;
        buffer[..4].copy_from_slice(&length.to_be_bytes());
        Ok(Reply { bytes: buffer.freeze(), memory: None })
    }
}

/// Starts to answer one frame (without its length).
///
/// Produce requests are queued for the writer before this returns, so that several of one connection share a commit.
/// Everything else runs when the answer is awaited, after earlier answers.
pub(crate) async fn begin(
    shared: &Arc<Shared>,
    client_host: &str,
    mut frame: Bytes,
    memory: Option<OwnedSemaphorePermit>,
) -> Result<Pending, Unfit> {
    let (Some(key), Some(version), Some(correlation)) = (int16(&frame, 0), int16(&frame, 2), int32(&frame, 4)) else {
        return Err(Unfit::Malformed("shorter than a header".to_owned()));
    };
    let api = ApiKey::try_from(key).map_err(|()| Unfit::Api(key))?;
    let Some((_, min, max)) = VERSIONS.iter().find(|(known, ..)| *known == api) else {
        return Err(Unfit::Api(key));
    };
    let mut asked = Asked {
        shared: Arc::clone(shared),
        version,
        client_id: StrBytes::default(),
        client_host: client_host.to_owned(),
        correlation,
    };
    if !(*min..=*max).contains(&version) {
        // A client with a newer version learns from a version 0 answer which versions it may use.
        if api == ApiKey::ApiVersions {
            let reply = asked.encode(0, &versions::unsupported())?;
            return Ok(Box::pin(async { Ok(Some(reply)) }));
        }
        return Err(Unfit::Version(api, version));
    }
    let header =
        RequestHeader::decode(&mut frame, api.request_header_version(version)).map_err(|e| Unfit::Malformed(e.to_string()))?;
    asked.client_id = header.client_id.unwrap_or_default();
    let unfit = |()| Unfit::Malformed("its lengths do not match the frame".to_owned());
    let body = shape::fitting(api, version, frame).map_err(unfit)?;
    dispatch(api, asked, body, memory).await
}

async fn dispatch(api: ApiKey, asked: Asked, body: Bytes, memory: Option<OwnedSemaphorePermit>) -> Result<Pending, Unfit> {
    match api {
        ApiKey::Produce => produce::begin(asked.clone(), decode(&asked, body)?, memory).await,
        ApiKey::Fetch => fetch::begin(asked.clone(), decode(&asked, body)?),
        ApiKey::ListOffsets => answer(asked, body, offsets::list),
        ApiKey::Metadata => answer(asked, body, metadata::metadata),
        ApiKey::DescribeCluster => answer(asked, body, metadata::cluster),
        ApiKey::FindCoordinator => answer(asked, body, metadata::coordinator),
        ApiKey::OffsetCommit => answer(asked, body, committed::commit),
        ApiKey::OffsetFetch => answer(asked, body, committed::fetch),
        ApiKey::JoinGroup => answer(asked, body, groups::join),
        ApiKey::SyncGroup => answer(asked, body, groups::sync),
        ApiKey::Heartbeat => answer(asked, body, groups::heartbeat),
        ApiKey::LeaveGroup => answer(asked, body, groups::leave),
        ApiKey::ListGroups => answer(asked, body, groups::list),
        ApiKey::DescribeGroups => answer(asked, body, groups::describe),
        ApiKey::DeleteGroups => answer(asked, body, forget::groups),
        ApiKey::OffsetDelete => answer(asked, body, forget::offsets),
        ApiKey::ApiVersions => answer(asked, body, versions::versions),
        ApiKey::CreateTopics => answer(asked, body, admin::create_topics),
        ApiKey::DeleteTopics => answer(asked, body, admin::delete_topics),
        ApiKey::DeleteRecords => answer(asked, body, admin::delete_records),
        ApiKey::DescribeConfigs => answer(asked, body, admin::describe_configs),
        ApiKey::InitProducerId => answer(asked, body, produce::init_producer),
        other => Err(Unfit::Api(other as i16)),
    }
}

fn decode<Q: Decodable>(asked: &Asked, mut body: Bytes) -> Result<Q, Unfit> {
    Q::decode(&mut body, asked.version).map_err(|e| Unfit::Malformed(e.to_string()))
}

fn answer<Q, R, F>(asked: Asked, body: Bytes, handler: impl FnOnce(Asked, Q) -> F) -> Result<Pending, Unfit>
where
    Q: Decodable,
    R: Encodable + HeaderVersion,
    F: Future<Output = R> + Send + 'static,
{
    let request = decode(&asked, body)?;
    let response = handler(asked.clone(), request);
    Ok(Box::pin(async move { asked.encode(asked.version, &response.await).map(Some) }))
}

/// Returns Kafka's code of an outcome: 0 for a success.
fn code<T>(outcome: &Result<T, ResponseError>) -> i16 {
    outcome.as_ref().err().map_or(0, ResponseError::code)
}

fn int16(bytes: &[u8], at: usize) -> Option<i16> {
    bytes.get(at..at + 2)?.try_into().ok().map(i16::from_be_bytes)
}

fn int32(bytes: &[u8], at: usize) -> Option<i32> {
    bytes.get(at..at + 4)?.try_into().ok().map(i32::from_be_bytes)
}
