//! gRPC: `OperationsService`.

use minishop_contracts::ops::v1::operations_service_server::OperationsService;
use minishop_contracts::ops::v1::{GetStatusRequest, GetStatusResponse, ListDeadLettersRequest, ListDeadLettersResponse};
use tonic::{Request, Response, Status};

use super::Service;
use crate::call::Protocol;
use crate::{fields, ops};

#[tonic::async_trait]
impl OperationsService for Service {
    async fn get_status(&self, request: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        self.answered("minishop.ops.v1.OperationsService/GetStatus", request, async |app, call, _| ops::status(app, call).await)
            .await
    }

    async fn list_dead_letters(
        &self,
        request: Request<ListDeadLettersRequest>,
    ) -> Result<Response<ListDeadLettersResponse>, Status> {
        self.answered("minishop.ops.v1.OperationsService/ListDeadLetters", request, async |app, call, message| {
            ops::dead_letters(app, call, &fields::checked(Protocol::Grpc, message, Vec::new())?).await
        })
        .await
    }
}
