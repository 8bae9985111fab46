//! gRPC: `OperationsService`.

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use minishop_contracts::ops::v1::operations_service_server::OperationsService;
use minishop_contracts::ops::v1::{
    AnnounceOrdersRequest, AnnounceOrdersResponse, ControlOperationRequest, ControlOperationResponse, DiscardDeadLettersRequest,
    DiscardDeadLettersResponse, GetDeadLetterRequest, GetDeadLetterResponse, GetOperationRequest, GetOperationResponse,
    GetStatusRequest, GetStatusResponse, ListAuditRequest, ListAuditResponse, ListDeadLetterGroupsRequest,
    ListDeadLetterGroupsResponse, ListDeadLettersRequest, ListDeadLettersResponse, ListOperationsRequest, ListOperationsResponse,
    ListParkedKeysRequest, ListParkedKeysResponse, RedriveDeadLettersRequest, RedriveDeadLettersResponse, WatchStatusRequest,
    WatchStatusResponse,
};
use tonic::{Request, Response, Status};

use super::service::Service;
use super::status;
use crate::operations;

#[tonic::async_trait]
impl OperationsService for Service {
    async fn get_status(&self, request: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        self.answered("minishop.ops.v1.OperationsService/GetStatus", request, async |app, call, _| {
            operations::status(app, call).await
        })
        .await
    }

    type WatchStatusStream = BoxStream<'static, Result<WatchStatusResponse, Status>>;

    async fn watch_status(&self, request: Request<WatchStatusRequest>) -> Result<Response<Self::WatchStatusStream>, Status> {
        let ((call, _), _) = self.call("minishop.ops.v1.OperationsService/WatchStatus", request);
        let subscriber =
            call.run(async { self.0.status_feed.subscribe() }).await.map_err(|refusal| status::of(&call, &refusal))?;
        let statuses = stream::unfold(subscriber, async |mut subscriber| Some((subscriber.next().await?, subscriber)));
        let response = status::dressed(&call, ());
        let statuses = statuses.map(move |next| next.map_err(|refusal| status::of(&call, &refusal)));
        Ok(response.map(|()| statuses.boxed()))
    }

    async fn get_dead_letter(&self, request: Request<GetDeadLetterRequest>) -> Result<Response<GetDeadLetterResponse>, Status> {
        self.checked("minishop.ops.v1.OperationsService/GetDeadLetter", request, operations::dead_letter).await
    }

    async fn list_dead_letters(
        &self,
        request: Request<ListDeadLettersRequest>,
    ) -> Result<Response<ListDeadLettersResponse>, Status> {
        self.checked("minishop.ops.v1.OperationsService/ListDeadLetters", request, operations::dead_letters).await
    }

    async fn list_dead_letter_groups(
        &self,
        request: Request<ListDeadLetterGroupsRequest>,
    ) -> Result<Response<ListDeadLetterGroupsResponse>, Status> {
        self.checked("minishop.ops.v1.OperationsService/ListDeadLetterGroups", request, operations::dead_letter_groups).await
    }

    async fn redrive_dead_letters(
        &self,
        request: Request<RedriveDeadLettersRequest>,
    ) -> Result<Response<RedriveDeadLettersResponse>, Status> {
        self.answered("minishop.ops.v1.OperationsService/RedriveDeadLetters", request, async |app, call, message| {
            operations::redrive(app, call, operations::checked_choice(call, message, Vec::new())?).await
        })
        .await
    }

    async fn discard_dead_letters(
        &self,
        request: Request<DiscardDeadLettersRequest>,
    ) -> Result<Response<DiscardDeadLettersResponse>, Status> {
        self.answered("minishop.ops.v1.OperationsService/DiscardDeadLetters", request, async |app, call, message| {
            operations::discard(app, call, operations::checked_choice(call, message, Vec::new())?).await
        })
        .await
    }

    async fn list_parked_keys(
        &self,
        request: Request<ListParkedKeysRequest>,
    ) -> Result<Response<ListParkedKeysResponse>, Status> {
        self.checked("minishop.ops.v1.OperationsService/ListParkedKeys", request, operations::parked_keys).await
    }

    async fn list_operations(&self, request: Request<ListOperationsRequest>) -> Result<Response<ListOperationsResponse>, Status> {
        self.checked("minishop.ops.v1.OperationsService/ListOperations", request, operations::list).await
    }

    async fn get_operation(&self, request: Request<GetOperationRequest>) -> Result<Response<GetOperationResponse>, Status> {
        self.checked("minishop.ops.v1.OperationsService/GetOperation", request, operations::get).await
    }

    async fn control_operation(
        &self,
        request: Request<ControlOperationRequest>,
    ) -> Result<Response<ControlOperationResponse>, Status> {
        self.checked("minishop.ops.v1.OperationsService/ControlOperation", request, operations::control).await
    }

    async fn announce_orders(&self, request: Request<AnnounceOrdersRequest>) -> Result<Response<AnnounceOrdersResponse>, Status> {
        self.answered("minishop.ops.v1.OperationsService/AnnounceOrders", request, async |app, call, message| {
            operations::announce(app, call, operations::checked_announce(call, message, Vec::new())?).await
        })
        .await
    }

    async fn list_audit(&self, request: Request<ListAuditRequest>) -> Result<Response<ListAuditResponse>, Status> {
        self.checked("minishop.ops.v1.OperationsService/ListAudit", request, operations::audit).await
    }
}
