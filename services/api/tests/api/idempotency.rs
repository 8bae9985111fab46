//! One contract for both protocols: the same key and command make one order and one event.

use minishop_contracts::orders::v1::{CreateOrderRequest, CreateOrderResponse, OrderItem};
use minishop_platform::bus::Headers;
use tonic::{Request, Response, Status};
use tonic_types::StatusExt as _;

use crate::harness::{Api, B, api, api_with};

fn order(qty: i32) -> CreateOrderRequest {
    CreateOrderRequest {
        customer_id: "c1".into(),
        items: vec![OrderItem { product_id: "p1".into(), qty, price: Some(10.5) }],
        currency: None,
    }
}

async fn call(api: &Api, key: &str, message: CreateOrderRequest) -> Result<Response<CreateOrderResponse>, Status> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-idempotency-key", key.parse().unwrap());
    request.metadata_mut().insert("x-correlation-id", "corr-g".parse().unwrap());
    api.client().await.create_order(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_order_is_answered_read_and_announced() {
    let api = api().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [
        ("content-type", "application/json"),
        ("x-idempotency-key", "order-c1-001"),
        ("x-correlation-id", "corr-001"),
        ("traceparent", trace),
        ("tracestate", "a=1"),
    ];
    let made = api.send("POST", "/orders", &headers, B.as_bytes()).await;
    assert_eq!(made.status, 201, "{made:?}");
    let id = made.json()["orderId"].as_str().unwrap().to_owned();
    assert_eq!(String::from_utf8(made.body.clone()).unwrap(), format!(r#"{{"orderId":"{id}","status":"created","total":21}}"#));
    let location = format!("/orders/{id}");
    for (name, value) in [
        ("location", location.as_str()),
        ("x-correlation-id", "corr-001"),
        ("x-idempotency-key", "order-c1-001"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(made.header(name), Some(value), "{name}");
    }
    assert_eq!(made.header("idempotent-replayed"), None);

    let read = api.get(&location.to_uppercase().replace("/ORDERS", "/orders")).await.json();
    assert_eq!((read["orderId"].as_str(), read["total"].as_i64()), (Some(id.as_str()), Some(21)));
    assert_eq!((read["correlationId"].as_str(), read["version"].as_i64()), (Some("corr-001"), Some(1)));

    let events = api.events().await;
    assert_eq!(events.len(), 1);
    let event = &events[0].event;
    let value: serde_json::Value = serde_json::from_slice(event.payload.as_ref().unwrap()).unwrap();
    let mut keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
    keys.sort();
    assert_eq!(keys, ["correlationId", "data", "eventId", "idempotencyKey", "occurredAt", "type"]);
    let headers = Headers::decode(event.headers.clone()).unwrap();
    for (name, text) in [
        ("ce_id", value["eventId"].as_str().unwrap()),
        ("ce_time", value["occurredAt"].as_str().unwrap()),
        ("ce_type", "orders.created.v1"),
        ("ce_specversion", "1.0"),
        ("ce_subject", id.as_str()),
        ("ce_sequence", "1"),
        ("ce_client", "anonymous"),
        ("correlation-id", "corr-001"),
        ("tracestate", "a=1"),
    ] {
        assert_eq!(headers.get(name), Some(text), "{name}");
    }
    assert!(headers.get("traceparent").unwrap().starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
    assert_eq!((event.topic.as_str(), &event.record_key[..]), ("orders.created", &b"c1"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_protocol_replays_the_first_answer() {
    let api = api().await;
    let made = api.post("k", B).await;
    let again = api.post("k", r#"{"items":[{"price":1.05e1,"qty":2,"productId":"\u0070\u0031"}], "customerId":"c1"}"#).await;
    assert_eq!((again.status, &again.body), (201, &made.body));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let reply = call(&api, "k", order(2)).await.unwrap();
    assert_eq!(reply.metadata().get("idempotent-replayed").unwrap(), "true");
    assert_eq!(reply.metadata().get("x-idempotency-key").unwrap(), "k");
    assert_eq!(reply.metadata().get("x-correlation-id").unwrap(), "corr-g");
    assert_eq!(minishop_contracts::json::to_vec(reply.get_ref()), made.body);
    let other = call(&api, "k", order(3)).await.unwrap_err();
    assert_eq!(other.code(), tonic::Code::FailedPrecondition);
    let details = other.get_error_details();
    assert_eq!(
        details.error_info().map(|i| (i.reason.as_str(), i.domain.as_str())),
        Some(("IDEMPOTENCY_KEY_REUSED", "minishop"))
    );
    let other = api.post("k", B.replace("10.5", "10.51")).await;
    assert_eq!((other.status, other.refusal().0.as_str()), (422, "IDEMPOTENCY_KEY_REUSED"));
    assert_eq!(other.header("x-idempotency-key"), Some("k"));
    assert_eq!(api.events().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_at_once_over_both_protocols_make_one_order() {
    let api = api().await;
    let rest = futures::future::join_all((0..50).map(|_| api.post("k", B)));
    let grpc = futures::future::join_all((0..50).map(|_| call(&api, "k", order(2))));
    let (rest, grpc) = tokio::join!(rest, grpc);
    let grpc: Vec<_> = grpc.into_iter().map(Result::unwrap).collect();
    let firsts = rest.iter().filter(|a| a.header("idempotent-replayed").is_none()).count()
        + grpc.iter().filter(|r| r.metadata().get("idempotent-replayed").is_none()).count();
    assert_eq!(firsts, 1);
    let bodies: std::collections::HashSet<_> =
        rest.into_iter().map(|a| a.body).chain(grpc.iter().map(|r| minishop_contracts::json::to_vec(r.get_ref()))).collect();
    assert_eq!((bodies.len(), api.events().await.len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_commands_under_one_key_make_one_order_and_nineteen_refusals() {
    let api = api().await;
    let bodies: Vec<_> = (1..=20).map(|qty| B.replace(":2,", &format!(":{qty},"))).collect();
    let answers = futures::future::join_all(bodies.iter().map(|body| api.post("k", body))).await;
    let made = answers.iter().filter(|a| a.status == 201).count();
    let reused = answers.iter().filter(|a| a.status == 422).count();
    assert_eq!((made, reused, api.events().await.len()), (1, 19, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_key_is_made_and_returned_or_required() {
    let api = api().await;
    let made = api.post("", B).await;
    let key = made.header("x-idempotency-key").unwrap().to_owned();
    assert_eq!(api.post(&key, B).await.body, made.body);
    let strict = api_with(|config| config.require_idempotency_key = true).await;
    assert_eq!(strict.post("", B).await.refusal().0, "IDEMPOTENCY_KEY_REQUIRED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_outbox_sheds_new_orders_and_reads_go_on() {
    let api = api_with(|config| config.outbox_limit_rows = -1).await;
    let shed = api.post("k", B).await;
    assert_eq!((shed.status, shed.refusal().0.as_str()), (429, "OUTBOX_FULL"));
    assert!(shed.header("retry-after").is_some());
    assert_eq!(api.get("/orders").await.status, 200);
}
