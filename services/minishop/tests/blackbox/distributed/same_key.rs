//! One key, several requests, two protocols.

use std::collections::HashSet;
use std::time::Duration;

use minishop_contracts::json;
use minishop_contracts::orders::v1::order_service_client::OrderServiceClient;
use minishop_contracts::orders::v1::{CreateOrderRequest, CreateOrderResponse, OrderItem};
use minishop_testkit::blocking::{block_on, eventually};
use minishop_testkit::process::Process;
use minishop_testkit::rest::{Answer, post};
use serde_json::Value;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::support::checker::Ledger as _;
use crate::support::shop::Shop;

const ORDER: &str = r#"{"customerId":"c1","items":[{"productId":"p1","qty":2,"price":10.5}]}"#;

async fn connect(api: &Process) -> OrderServiceClient<Channel> {
    OrderServiceClient::connect(format!("http://{}", api.addr("grpc"))).await.unwrap()
}

async fn create(
    client: &mut OrderServiceClient<Channel>,
    key: &str,
    price: f64,
) -> Result<Response<CreateOrderResponse>, Status> {
    let mut request = Request::new(CreateOrderRequest {
        customer_id: "c1".to_owned(),
        items: vec![OrderItem { product_id: "p1".to_owned(), qty: 2, price: Some(price) }],
        ..CreateOrderRequest::default()
    });
    request.metadata_mut().insert("x-idempotency-key", key.parse().unwrap());
    client.create_order(request).await
}

fn rest(api: &Process, key: &str, body: &str) -> Answer {
    post(api.addr("http"), "/orders", &[("x-idempotency-key", key)], body)
}

fn replayed(answer: &Response<CreateOrderResponse>) -> bool {
    answer.metadata().get("idempotent-replayed").is_some_and(|value| value == "true")
}

/// Returns a message's canonical JSON, which is the REST body.
fn in_json(answer: &Response<CreateOrderResponse>) -> String {
    String::from_utf8(json::to_vec(answer.get_ref())).unwrap()
}

fn one_order_and_one_event(shop: &Shop) {
    assert_eq!(shop.number("SELECT count(*) FROM orders"), 1);
    eventually(Duration::from_secs(10), "the event is sent", || shop.number("SELECT count(*) FROM outbox_waiting") == 0);
    eventually(Duration::from_secs(10), "the event is sent", || shop.waiting() == 0);
    assert_eq!(shop.records("orders.created").len(), 1);
}

#[test]
fn grpc_replays_what_rest_has_created_and_either_refuses_another_order() {
    let shop = Shop::new();
    let api = shop.api();
    let first = rest(&api, "k1", ORDER);
    assert_eq!((first.status, first.header("idempotent-replayed")), (201, None));
    let again = rest(&api, "k1", &ORDER.replace(':', ": "));
    assert_eq!((again.status, &again.body, again.header("idempotent-replayed")), (201, &first.body, Some("true")));
    let other = rest(&api, "k1", &ORDER.replace("10.5", "10.6"));
    assert_eq!((other.status, other.header("content-type")), (422, Some("application/problem+json")));
    assert_eq!(serde_json::from_str::<Value>(&other.body).unwrap()["code"], "IDEMPOTENCY_KEY_REUSED");
    block_on(async {
        let mut client = connect(&api).await;
        let grpc = create(&mut client, "k1", 10.5).await.unwrap();
        assert!(replayed(&grpc));
        assert_eq!(in_json(&grpc), first.body);
        let refused = create(&mut client, "k1", 10.6).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(String::from_utf8_lossy(refused.details()).contains("IDEMPOTENCY_KEY_REUSED"), "{refused:?}");
    });
    one_order_and_one_event(&shop);
}

#[test]
fn a_hundred_at_once_over_both_protocols_make_one_order() {
    const EACH: usize = 50;
    let shop = Shop::new();
    // Two processes, so only the database can decide between them.
    let apis = [shop.api(), shop.api()];
    let answers: Vec<(String, bool)> = std::thread::scope(|scope| {
        let over_rest: Vec<_> = (0..EACH)
            .map(|n| {
                let api = &apis[n % 2];
                scope.spawn(move || {
                    let answer = rest(api, "k1", ORDER);
                    assert_eq!(answer.status, 201, "{answer:?}");
                    (answer.body.clone(), answer.header("idempotent-replayed") == Some("true"))
                })
            })
            .collect();
        let over_grpc = block_on(async {
            let clients = [connect(&apis[0]).await, connect(&apis[1]).await];
            let calls = (0..EACH).map(|n| {
                let mut client = clients[n % 2].clone();
                async move {
                    let answer = create(&mut client, "k1", 10.5).await.unwrap();
                    (in_json(&answer), replayed(&answer))
                }
            });
            futures::future::join_all(calls).await
        });
        over_rest.into_iter().map(|answer| answer.join().unwrap()).chain(over_grpc).collect()
    });
    assert_eq!(answers.len(), 2 * EACH);
    assert_eq!(
        answers.iter().filter(|(_, replayed)| !replayed).count(),
        1,
        "one answer is the first, all others say that they are replays"
    );
    let bodies: HashSet<&String> = answers.iter().map(|(body, _)| body).collect();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    let order = serde_json::from_str::<Value>(&answers[0].0).unwrap()["orderId"].clone();
    one_order_and_one_event(&shop);
    let event: Value = serde_json::from_slice(shop.records("orders.created")[0].value.as_deref().unwrap()).unwrap();
    assert_eq!((&event["data"]["orderId"], &event["idempotencyKey"]), (&order, &Value::from("k1")));
}
