//! `ApiVersions`: the supported requests and versions.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};

use super::{Asked, VERSIONS};

pub(super) async fn versions(_asked: Asked, _request: ApiVersionsRequest) -> ApiVersionsResponse {
    ApiVersionsResponse::default().with_api_keys(spoken())
}

/// Returns the answer, in version 0, to an unknown version.
pub(super) fn unsupported() -> ApiVersionsResponse {
    ApiVersionsResponse::default().with_error_code(ResponseError::UnsupportedVersion.code()).with_api_keys(spoken())
}

fn spoken() -> Vec<ApiVersion> {
    VERSIONS
        .iter()
        .map(|(api, min, max)| {
            // librdkafka compresses only for brokers that claim produce version 0, though it never sends it.
            let min = if *api == ApiKey::Produce { 0 } else { *min };
            ApiVersion::default().with_api_key(*api as i16).with_min_version(min).with_max_version(*max)
        })
        .collect()
}
