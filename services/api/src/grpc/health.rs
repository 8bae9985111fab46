//! Health: the library's service, changed in two points.
//!
//! A watch on an unknown service gets `SERVICE_UNKNOWN` on a stream that stays open (grpc.health.v1); the library ends the call
//! with `NOT_FOUND`. And watches end after `NOT_SERVING`, so that they do not hold up a drain.

use std::pin::Pin;

use futures::{Stream, StreamExt as _, future, stream};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_health::server::HealthService;

/// The health service.
pub struct Reports {
    pub known: HealthService,
    pub drain: CancellationToken,
}

#[tonic::async_trait]
impl Health for Reports {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        self.known.check(request).await
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        match self.known.watch(request).await {
            Ok(known) => Ok(Response::new(Box::pin(until_not_serving(known.into_inner())))),
            // All services are known before the first call, so no other status can follow.
            Err(status) if status.code() == Code::NotFound => {
                let answer =
                    stream::once(future::ready(Ok(HealthCheckResponse { status: ServingStatus::ServiceUnknown.into() })));
                let drained = stream::once(self.drain.clone().cancelled_owned()).filter_map(|()| future::ready(None));
                Ok(Response::new(Box::pin(answer.chain(drained))))
            }
            Err(status) => Err(status),
        }
    }
}

/// Ends the stream after `NOT_SERVING`, which only a drain reports.
fn until_not_serving<S>(known: S) -> impl Stream<Item = Result<HealthCheckResponse, Status>>
where
    S: Stream<Item = Result<HealthCheckResponse, Status>> + Unpin,
{
    stream::unfold(Some(known), |known| async {
        let mut known = known?;
        let answer = known.next().await?;
        let over = answer.as_ref().is_ok_and(|answer| answer.status == i32::from(ServingStatus::NotServing));
        Some((answer, (!over).then_some(known)))
    })
}
