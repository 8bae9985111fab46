//! One contract for both protocols: the same key and command make one order and one event.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use minishop_bus::Headers;
use minishop_contracts::orders::v1::{CreateOrderRequest, CreateOrderResponse, OrderItem};
use minishop_core::ids::Ids as _;
use minishop_platform::clock::SystemIds;
use minishop_testkit::database::Engine;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tonic::{Request, Response, Status};
use tonic_types::StatusExt as _;

use crate::harness::{Api, B, read_answer, request};
use crate::world::World;

pub fn order(qty: i32) -> CreateOrderRequest {
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

pub async fn an_accepted_order_is_answered_read_and_announced(world: &World) {
    let api = world.api().await;
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
    let headers = Headers::decode(&event.headers).unwrap();
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

pub async fn the_other_protocol_replays_the_first_answer(world: &World) {
    let api = world.api().await;
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

pub async fn a_hundred_at_once_over_both_protocols_make_one_order(world: &World) {
    let api = world.api().await;
    let rest = futures::future::join_all((0..50).map(|_| api.post("k", B)));
    let grpc = futures::future::join_all((0..50).map(|_| call(&api, "k", order(2))));
    let (rest, grpc) = tokio::join!(rest, grpc);
    let grpc: Vec<_> = grpc.into_iter().map(Result::unwrap).collect();
    let firsts = rest.iter().filter(|a| a.header("idempotent-replayed").is_none()).count()
        + grpc.iter().filter(|r| r.metadata().get("idempotent-replayed").is_none()).count();
    assert_eq!(firsts, 1);
    let bodies: HashSet<_> =
        rest.into_iter().map(|a| a.body).chain(grpc.iter().map(|r| minishop_contracts::json::to_vec(r.get_ref()))).collect();
    assert_eq!((bodies.len(), api.events().await.len()), (1, 1));
}

pub async fn twenty_commands_under_one_key_make_one_order_and_nineteen_refusals(world: &World) {
    let api = world.api().await;
    let bodies: Vec<_> = (1..=20).map(|qty| B.replace(":2,", &format!(":{qty},"))).collect();
    let answers = futures::future::join_all(bodies.iter().map(|body| api.post("k", body))).await;
    let made = answers.iter().filter(|a| a.status == 201).count();
    let reused = answers.iter().filter(|a| a.status == 422).count();
    assert_eq!((made, reused, api.events().await.len()), (1, 19, 1));
}

pub async fn a_replay_is_the_first_answer_after_processing_and_after_a_restart(world: &World) {
    let api = world.api().await;
    let made = api.post("k", B).await;
    let replays = async |api: &Api| {
        let names = r#"{"items":[{"product_id":"p1","price":"10.50","qty":"2"}],"customer_id":"c1"}"#;
        for body in [B, &B.replace(',', " ,\n "), &B.replace("10.5", "10.50"), names] {
            let again = api.post("k", body).await;
            assert_eq!((again.status, again.header("idempotent-replayed")), (201, Some("true")), "{body}");
            assert_eq!((&again.body, again.header("location")), (&made.body, made.header("location")));
        }
    };
    replays(&api).await;
    api.database.sql("UPDATE orders SET status = 'processed', version = 2").await;
    replays(&api).await;
    let database = api.database.clone();
    drop(api);
    let api = world.api_on(&database, |_| {}).await;
    replays(&api).await;
    assert_eq!((api.orders().await, api.events().await.len()), (1, 1));
}

pub async fn any_change_of_the_command_is_refused_over_both_protocols(world: &World) {
    let api = world.api().await;
    let two = r#"{"customerId":"c1","items":[{"productId":"p1","qty":2,"price":10.5},{"productId":"p2","qty":1,"price":1}]}"#;
    let swapped = r#"{"customerId":"c1","items":[{"productId":"p2","qty":1,"price":1},{"productId":"p1","qty":2,"price":10.5}]}"#;
    let made = api.post("k", two).await;
    for body in [
        two.replace(":2,", ":3,"),
        two.replace("10.5", "10.51"),
        two.replace("c1", "c2"),
        two.replace("]}", "],\"currency\":\"BRL\"}"),
        swapped.to_owned(),
    ] {
        let other = api.post("k", &body).await;
        assert_eq!((other.status, other.refusal().0.as_str()), (422, "IDEMPOTENCY_KEY_REUSED"), "{body}");
        let message = minishop_contracts::json::decode_command(body.as_bytes()).unwrap();
        assert_eq!(call(&api, "k", message).await.unwrap_err().code(), tonic::Code::FailedPrecondition, "{body}");
    }
    let again = api.post("k", two).await;
    assert_eq!((again.header("idempotent-replayed"), &again.body), (Some("true"), &made.body));
}

pub async fn a_key_whose_first_request_runs_on_is_in_flight_after_two_seconds(world: &World) {
    let api = world.api().await;
    let hold = api.hold("k").await;
    let mut first = TcpStream::connect(api.http).await.unwrap();
    first
        .write_all(&request("POST", "/orders", &[("content-type", "application/json"), ("x-idempotency-key", "k")], B.as_bytes()))
        .await
        .unwrap();
    api.until_statements(1).await;
    let begun = Instant::now();
    let reused = api.post("k", B.replace("10.5", "1")).await;
    assert_eq!((reused.status, reused.refusal().0.as_str()), (422, "IDEMPOTENCY_KEY_REUSED"));
    assert!(begun.elapsed() < Duration::from_secs(1), "at once");
    let second = api.post("k", B).await;
    assert_eq!((second.status, second.refusal().0.as_str()), (409, "IDEMPOTENCY_KEY_IN_FLIGHT"));
    assert!(second.header("retry-after").is_some());
    hold.release().await;
    let first = read_answer(&mut first).await;
    match world.engine {
        Engine::Sqlite => assert_eq!(first.status, 201, "{first:?}"),
        // Another process may hold the key, so its own wait ends too, at the moment when the key is released.
        Engine::Postgres if first.status == 201 => {}
        Engine::Postgres => assert_eq!(first.refusal().0, "IDEMPOTENCY_KEY_IN_FLIGHT", "{first:?}"),
    }
    assert_eq!(api.post("k", B).await.status, 201);
    assert_eq!(api.orders().await, 1);
}

/// Returns a random number below `limit`.
fn below(limit: usize) -> usize {
    let [a, b, c, d, ..] = SystemIds.random();
    u32::from_be_bytes([a, b, c, d]) as usize % limit
}

pub async fn clients_that_go_away_at_any_moment_leave_one_order_for_each_key(world: &World) {
    let api = world.api().await;
    for n in 0..50 {
        let key = format!("rest-{n}");
        let whole =
            request("POST", "/orders", &[("content-type", "application/json"), ("x-idempotency-key", &key)], B.as_bytes());
        let mut stream = TcpStream::connect(api.http).await.unwrap();
        // Every other request is cut within its message.
        let cut = if n % 2 == 0 { whole.len() } else { below(whole.len()) };
        stream.write_all(&whole[..cut]).await.unwrap();
        let moment = tokio::time::timeout(Duration::from_micros(below(3000) as u64), stream.readable()).await;
        drop((moment, stream));
        let key = format!("grpc-{n}");
        let gone = tokio::time::timeout(Duration::from_micros(below(6000) as u64), call(&api, &key, order(2))).await;
        drop(gone);
    }
    for n in 0..50 {
        assert_eq!(api.post(&format!("rest-{n}"), B).await.status, 201);
        assert!(call(&api, &format!("grpc-{n}"), order(2)).await.is_ok());
    }
    assert_eq!((api.orders().await, api.events().await.len()), (100, 100));
}
