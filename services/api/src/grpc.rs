//! gRPC: decode, call, encode. Also reflection, health and gRPC-web.

mod deadline;
mod media;
mod status;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use minishop_contracts::FILE_DESCRIPTOR_SET;
use minishop_contracts::headers::http as names;
use minishop_contracts::ops::v1::operations_service_server::{OperationsService, OperationsServiceServer};
use minishop_contracts::ops::v1::{GetStatusRequest, GetStatusResponse, ListDeadLettersRequest, ListDeadLettersResponse};
use minishop_contracts::orders::v1::order_service_server::{OrderService, OrderServiceServer};
use minishop_contracts::orders::v1::{
    CreateOrderRequest, CreateOrderResponse, GetOrderRequest, ListOrdersRequest, ListOrdersResponse, Order,
};
use minishop_core::refusal::Refusal;
use tonic::codec::CompressionEncoding::{Gzip, Zstd};
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tonic_web::GrpcWebLayer;
use tower::Layer as _;

use crate::app::App;
use crate::call::{Call, Protocol};
use crate::metrics::Outcome;
use crate::orders::Created;
use crate::{fields, ops, orders};

/// The largest message in bytes, before and after decompression.
pub const MESSAGE_BYTES: usize = 1_048_576;

/// Builds the gRPC listener's router.
pub fn router(app: &Arc<App>) -> anyhow::Result<(Router, Health)> {
    let (reporter, health) = tonic_health::server::health_reporter();
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
        };
        routes = routes.add_service(described().build_v1()?).add_service(described().build_v1alpha()?);
    }
    let web = GrpcWebLayer::new().layer(routes.prepare());
    Ok((Router::new().fallback_service(web).layer(from_fn_with_state(Arc::clone(app), media::only_grpc)), Health(reporter)))
}

/// Tells clients whether calls are taken.
#[derive(Debug)]
pub struct Health(HealthReporter);

impl Health {
    /// Says that calls are taken.
    pub async fn serving(&self) {
        self.say(ServingStatus::Serving).await;
    }

    /// Says that no more calls should come, before the listener closes.
    pub async fn not_serving(&self) {
        self.say(ServingStatus::NotServing).await;
    }

    async fn say(&self, status: ServingStatus) {
        for service in ["", "minishop.orders.v1.OrderService", "minishop.ops.v1.OperationsService"] {
            self.0.set_service_status(service, status).await;
        }
    }
}

/// Both services: they differ in nothing but their calls.
struct Service(Arc<App>);

#[tonic::async_trait]
impl OrderService for Service {
    async fn create_order(&self, request: Request<CreateOrderRequest>) -> Result<Response<CreateOrderResponse>, Status> {
        let app = &self.0;
        let ((mut call, metadata), message) = self.call("minishop.orders.v1.OrderService/CreateOrder", request);
        let key = call.take_key(app, metadata.as_ref());
        let work = async {
            app.admit()?;
            let key = key?;
            let command = fields::create_order(Protocol::Grpc, message, Vec::new())?;
            orders::create(app, &call, key, command).await
        };
        let outcome = call.run(work).await;
        app.metrics.answered(&call, Outcome::of(&outcome));
        let Created { reply, replayed } = outcome.map_err(|refusal| status::of(&call, &refusal))?;
        let mut response = status::dressed(&call, reply);
        if replayed {
            let yes = tonic::metadata::MetadataValue::from_static("true");
            response.metadata_mut().insert(names::IDEMPOTENT_REPLAYED, yes);
        }
        Ok(response)
    }

    async fn get_order(&self, request: Request<GetOrderRequest>) -> Result<Response<Order>, Status> {
        self.answered("minishop.orders.v1.OrderService/GetOrder", request, async |app, call, message| {
            orders::get(app, call, &fields::checked(Protocol::Grpc, message, Vec::new())?).await
        })
        .await
    }

    async fn list_orders(&self, request: Request<ListOrdersRequest>) -> Result<Response<ListOrdersResponse>, Status> {
        self.answered("minishop.orders.v1.OrderService/ListOrders", request, async |app, call, message| {
            orders::list(app, call, &fields::checked(Protocol::Grpc, message, Vec::new())?).await
        })
        .await
    }
}

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

impl Service {
    /// Reads the metadata.
    fn call<T>(&self, operation: &'static str, request: Request<T>) -> ((Call, MetadataMap), T) {
        let (metadata, _, message) = request.into_parts();
        let mut call = Call::new(&self.0, Protocol::Grpc, operation, metadata.as_ref());
        if let Some(limit) = deadline::read(metadata.as_ref()) {
            call.deadline = call.deadline.min(call.received + limit);
        }
        ((call, metadata), message)
    }

    /// Answers a read.
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
