//! gRPC: `OrderService`.

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use minishop_contracts::headers::http as names;
use minishop_contracts::orders::v1::order_service_server::OrderService;
use minishop_contracts::orders::v1::{
    CancelOrderRequest, CreateOrderRequest, CreateOrderResponse, GetOrderRequest, GetOrderTimelineRequest,
    GetOrderTimelineResponse, ListOrdersRequest, ListOrdersResponse, Order, WatchOrderRequest,
};
use minishop_core::refusal::Refusal;
use tonic::{Request, Response, Status};

use super::service::Service;
use super::status;
use crate::orders::CreateReply;
use crate::protocol::Protocol;
use crate::{fields, orders};

#[tonic::async_trait]
impl OrderService for Service {
    async fn create_order(&self, request: Request<CreateOrderRequest>) -> Result<Response<CreateOrderResponse>, Status> {
        let app = &self.0;
        let ((mut call, metadata), message) = self.call("minishop.orders.v1.OrderService/CreateOrder", request);
        let key = app.take_key(&mut call, metadata.as_ref());
        let decode = async {
            orders::admit(app)?;
            Ok::<_, Refusal>((key?, fields::create_order(Protocol::Grpc, message, Vec::new())?))
        };
        let outcome = orders::create(app, &call, decode).await;
        let CreateReply { reply, replayed } = outcome.map_err(|refusal| status::of(&call, &refusal))?;
        let mut response = status::dressed(&call, reply);
        if replayed {
            let yes = tonic::metadata::MetadataValue::from_static("true");
            response.metadata_mut().insert(names::IDEMPOTENT_REPLAYED, yes);
        }
        Ok(response)
    }

    async fn get_order(&self, request: Request<GetOrderRequest>) -> Result<Response<Order>, Status> {
        self.checked("minishop.orders.v1.OrderService/GetOrder", request, orders::get).await
    }

    async fn list_orders(&self, request: Request<ListOrdersRequest>) -> Result<Response<ListOrdersResponse>, Status> {
        self.checked("minishop.orders.v1.OrderService/ListOrders", request, orders::list).await
    }

    async fn cancel_order(&self, request: Request<CancelOrderRequest>) -> Result<Response<Order>, Status> {
        self.checked("minishop.orders.v1.OrderService/CancelOrder", request, orders::cancel).await
    }

    async fn get_order_timeline(
        &self,
        request: Request<GetOrderTimelineRequest>,
    ) -> Result<Response<GetOrderTimelineResponse>, Status> {
        self.checked("minishop.orders.v1.OrderService/GetOrderTimeline", request, orders::timeline).await
    }

    type WatchOrderStream = BoxStream<'static, Result<Order, Status>>;

    async fn watch_order(&self, request: Request<WatchOrderRequest>) -> Result<Response<Self::WatchOrderStream>, Status> {
        let ((call, _), message) = self.call("minishop.orders.v1.OrderService/WatchOrder", request);
        let work = async { orders::watch(&self.0, &call, fields::checked(Protocol::Grpc, message, Vec::new())?).await };
        let watch = call.run(work).await.map_err(|refusal| status::of(&call, &refusal))?;
        // `None`: the caller has seen the final version, and the stream ends at once.
        let orders = stream::unfold(watch, async |watch| {
            let mut watch = watch?;
            let next = watch.next().await?;
            Some((next, Some(watch)))
        });
        let reply = status::dressed(&call, ());
        let orders = orders.map(move |order| order.map_err(|refusal| status::of(&call, &refusal)));
        Ok(reply.map(|()| orders.boxed()))
    }
}
