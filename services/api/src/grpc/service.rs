//! What the methods of both services share: they read the metadata and answer.

use std::sync::Arc;

use minishop_contracts::Validate;
use minishop_core::refusal::Refusal;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::{deadline, status};
use crate::app::App;
use crate::call::Call;
use crate::fields;
use crate::protocol::Protocol;

/// Implements both services.
pub struct Service(pub Arc<App>);

impl Service {
    /// Reads the metadata; `grpc-timeout` may shorten the deadline.
    pub fn call<T>(&self, operation: &'static str, request: Request<T>) -> ((Call, MetadataMap), T) {
        let (metadata, _, message) = request.into_parts();
        let mut call = self.0.call(Protocol::Grpc, operation, metadata.as_ref());
        if let Some(limit) = deadline::read(metadata.as_ref()) {
            call.deadline = call.deadline.min(call.received + limit);
        }
        ((call, metadata), message)
    }

    /// Validates the message by its contract, passes it to a use case, and answers.
    pub async fn checked<T: Validate, R>(
        &self,
        operation: &'static str,
        request: Request<T>,
        use_case: impl AsyncFnOnce(&App, &Call, T) -> Result<R, Refusal>,
    ) -> Result<Response<R>, Status> {
        let work = async |app: &App, call: &Call, message: T| {
            use_case(app, call, fields::checked(Protocol::Grpc, message, Vec::new())?).await
        };
        self.answered(operation, request, work).await
    }

    /// Runs `work`, and answers.
    pub async fn answered<T, R>(
        &self,
        operation: &'static str,
        request: Request<T>,
        work: impl AsyncFnOnce(&App, &Call, T) -> Result<R, Refusal>,
    ) -> Result<Response<R>, Status> {
        let ((call, _), message) = self.call(operation, request);
        let answer = call.run(work(&self.0, &call, message)).await.map_err(|refusal| status::of(&call, &refusal))?;
        Ok(status::dressed(&call, answer))
    }
}
