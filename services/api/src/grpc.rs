//! gRPC: decode, call, encode; one file per service has the methods. Also reflection, health and gRPC-web.
//!
//! No rules, no wording: methods call a use case with a validated message, and write its outcome.

mod deadline;
mod health;
mod media;
mod operations;
mod orders;
mod service;
mod status;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use minishop_contracts::FILE_DESCRIPTOR_SET;
use minishop_contracts::ops::v1::operations_service_server::OperationsServiceServer;
use minishop_contracts::orders::v1::order_service_server::OrderServiceServer;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding::{Gzip, Zstd};
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tonic_reflection::pb as reflection;
use tonic_web::GrpcWebLayer;
use tower::Layer as _;

use crate::app::App;
use service::Service;

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
