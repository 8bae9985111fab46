//! gRPC answers: the status with its details (`google.rpc`), and the metadata that every answer has.

use std::collections::HashMap;

use minishop_contracts::headers::http as names;
use minishop_core::refusal::Refusal;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::{Response, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use crate::call::Call;
use crate::reply;

/// The domain of the reasons in `ErrorInfo`.
const DOMAIN: &str = "minishop";

/// Converts a refusal to a status.
pub fn of(call: &Call, refusal: &Refusal) -> Status {
    let (code, _) = reply::statuses(refusal.code);
    let mut details = ErrorDetails::new();
    details.set_error_info(refusal.code.as_str(), DOMAIN, HashMap::new());
    if !refusal.violations.is_empty() {
        let fields = refusal.violations.iter().map(|violation| FieldViolation {
            field: violation.field.clone(),
            description: violation.message.to_string(),
            reason: violation.code.as_str().to_owned(),
            localized_message: None,
        });
        details.set_bad_request(fields.collect::<Vec<_>>());
    }
    if let Some(wait) = refusal.retry_after {
        details.set_retry_info(Some(wait));
    }
    let mut metadata = MetadataMap::new();
    dress(call, &mut metadata);
    Status::with_error_details_and_metadata(code, refusal.detail.as_ref(), details, metadata)
}

/// Builds the response with a message.
pub fn dressed<T>(call: &Call, message: T) -> Response<T> {
    let mut response = Response::new(message);
    dress(call, response.metadata_mut());
    response
}

fn dress(call: &Call, metadata: &mut MetadataMap) {
    metadata.insert(names::CORRELATION_ID, value(call.correlation_id.as_str()));
    if let Some(key) = &call.key {
        metadata.insert(names::IDEMPOTENCY_KEY, value(key.as_str()));
    }
}

fn value(text: &str) -> AsciiMetadataValue {
    text.parse().expect("ids and keys are printable ASCII")
}
