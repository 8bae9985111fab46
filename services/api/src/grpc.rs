//! gRPC: decode, call, encode. Also reflection, health and gRPC-web.

mod deadline;
mod health;
mod media;
mod ops;
mod orders;
mod status;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use minishop_contracts::FILE_DESCRIPTOR_SET;
use minishop_contracts::ops::v1::operations_service_server::OperationsServiceServer;
use minishop_contracts::orders::v1::order_service_server::OrderServiceServer;
use minishop_core::refusal::Refusal;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding::{Gzip, Zstd};
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tonic_reflection::pb as reflection;
use tonic_web::GrpcWebLayer;
use tower::Layer as _;

use crate::app::App;
use crate::call::Call;
use crate::protocol::Protocol;

/// The largest message in bytes, before and after decompression.
pub const MESSAGE_BYTES: usize = 1_048_576;

/// Builds the gRPC listener's router.
pub fn router(app: &Arc<App>, drain: CancellationToken) -> anyhow::Result<(Router, Health)> {
    let reporter = HealthReporter::new();
    let health = HealthServer::new(health::Reports { known: HealthService::from_health_reporter(reporter.clone()), drain });
    let orders = OrderServiceServer::new(Service(Arc::clone(app)))
        .accept_compressed(Gzip)
        .accept_compressed(Zstd)
        .max_decoding_message_size(MESSAGE_BYTES);
    let operations = OperationsServiceServer::new(Service(Arc::clone(app)))
        .accept_compressed(Gzip)
        .accept_compressed(Zstd)
        .max_decoding_message_size(MESSAGE_BYTES);
    let mut routes = Routes::new(orders).add_service(operations).add_service(health);
    if app.config.reflection {
        let described = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                // The messages of error details, so that clients that use reflection can print them.
                .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
                // Each version of reflection describes both.
                .register_encoded_file_descriptor_set(reflection::v1::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(reflection::v1alpha::FILE_DESCRIPTOR_SET)
        };
        routes = routes.add_service(described().build_v1()?).add_service(described().build_v1alpha()?);
    }
    let web = GrpcWebLayer::new().layer(routes.prepare());
    Ok((Router::new().fallback_service(web).layer(from_fn_with_state(Arc::clone(app), media::only_grpc)), Health(reporter)))
}

/// Reports to clients whether calls are accepted.
#[derive(Debug)]
pub struct Health(HealthReporter);

impl Health {
    /// Reports `SERVING`.
    pub async fn serving(&self) {
        self.say(ServingStatus::Serving).await;
    }

    /// Reports `NOT_SERVING`, before the listener closes.
    pub async fn not_serving(&self) {
        self.say(ServingStatus::NotServing).await;
    }

    async fn say(&self, status: ServingStatus) {
        for service in ["", "minishop.orders.v1.OrderService", "minishop.ops.v1.OperationsService"] {
            self.0.set_service_status(service, status).await;
        }
    }
}

/// Implements both services.
struct Service(Arc<App>);

impl Service {
    /// Reads the metadata; `grpc-timeout` may shorten the deadline.
    fn call<T>(&self, operation: &'static str, request: Request<T>) -> ((Call, MetadataMap), T) {
        let (metadata, _, message) = request.into_parts();
        let mut call = Call::new(&self.0, Protocol::Grpc, operation, metadata.as_ref());
        if let Some(limit) = deadline::read(metadata.as_ref()) {
            call.deadline = call.deadline.min(call.received + limit);
        }
        ((call, metadata), message)
    }

    /// Runs `work`, and answers.
    async fn answered<T, R>(
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
