//! Orders over gRPC, through the client that is generated from the contracts.

use anyhow::Context;
use minishop_contracts::headers::http::IDEMPOTENCY_KEY;
use minishop_contracts::orders::v1::order_service_client::OrderServiceClient;
use minishop_contracts::orders::v1::{CreateOrderRequest, OrderItem};
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

use super::connection::Answer;

/// One HTTP/2 connection.
#[derive(Debug)]
pub struct Grpc {
    client: OrderServiceClient<Channel>,
}

impl Grpc {
    /// Connects to a host:port.
    pub async fn open(address: &str) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
        let channel = endpoint.connect().await.with_context(|| format!("cannot reach {address}; check that it is running"))?;
        Ok(Self { client: OrderServiceClient::new(channel) })
    }

    /// Sends one order. A broken connection is reported by the client as a status, too.
    pub async fn order(&mut self, customer: &str, key: &str) -> anyhow::Result<Answer> {
        let mut request = Request::new(CreateOrderRequest {
            customer_id: customer.to_owned(),
            items: vec![OrderItem { product_id: "p1".to_owned(), qty: 2, price: Some(10.5) }],
            ..CreateOrderRequest::default()
        });
        request.metadata_mut().insert(IDEMPOTENCY_KEY, key.parse()?);
        match self.client.create_order(request).await {
            Ok(answer) => {
                let order = answer.into_inner().order_id;
                Ok(Answer::Accepted(order.parse().with_context(|| format!("the order id {order:?}"))?))
            }
            // Only a status from the server has details or a message from it; the client's own have a source.
            Err(status) if std::error::Error::source(&status).is_some() => Err(status.into()),
            Err(status) => Ok(Answer::Refused(format!("{:?}", status.code()))),
        }
    }
}
