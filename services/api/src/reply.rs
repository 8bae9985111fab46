//! The status of each refusal, in one exhaustive match.

use http::StatusCode;
use minishop_core::refusal::Code;
use tonic::Code as Grpc;

/// Returns the gRPC and the HTTP status of a refusal.
pub const fn statuses(code: Code) -> (Grpc, StatusCode) {
    match code {
        Code::ValidationFailed
        | Code::JsonInvalid
        | Code::IdempotencyKeyRequired
        | Code::IdempotencyKeyInvalid
        | Code::IdempotencyKeyMismatch => (Grpc::InvalidArgument, StatusCode::BAD_REQUEST),
        Code::OrderNotFound | Code::DeadLetterNotFound | Code::OperationNotFound => (Grpc::NotFound, StatusCode::NOT_FOUND),
        Code::OrderNotCancellable => (Grpc::FailedPrecondition, StatusCode::CONFLICT),
        Code::RouteNotFound => (Grpc::Unimplemented, StatusCode::NOT_FOUND),
        Code::MethodNotAllowed => (Grpc::Unimplemented, StatusCode::METHOD_NOT_ALLOWED),
        Code::IdempotencyKeyInFlight => (Grpc::Aborted, StatusCode::CONFLICT),
        Code::RequestTimeout => (Grpc::DeadlineExceeded, StatusCode::REQUEST_TIMEOUT),
        Code::BodyTooLarge => (Grpc::OutOfRange, StatusCode::PAYLOAD_TOO_LARGE),
        Code::UriTooLong => (Grpc::OutOfRange, StatusCode::URI_TOO_LONG),
        Code::MediaTypeUnsupported => (Grpc::InvalidArgument, StatusCode::UNSUPPORTED_MEDIA_TYPE),
        Code::HostNotAllowed => (Grpc::PermissionDenied, StatusCode::MISDIRECTED_REQUEST),
        Code::IdempotencyKeyReused => (Grpc::FailedPrecondition, StatusCode::UNPROCESSABLE_ENTITY),
        Code::Overloaded | Code::OutboxFull => (Grpc::ResourceExhausted, StatusCode::TOO_MANY_REQUESTS),
        Code::Internal => (Grpc::Internal, StatusCode::INTERNAL_SERVER_ERROR),
        Code::StoreUnavailable | Code::ShuttingDown | Code::OutcomeUnknown => {
            (Grpc::Unavailable, StatusCode::SERVICE_UNAVAILABLE)
        }
        Code::DeadlineExceeded => (Grpc::DeadlineExceeded, StatusCode::GATEWAY_TIMEOUT),
    }
}
