//! Reads: one order, pages of orders, and the operators' view.

use std::collections::{BTreeSet, HashSet};

use minishop_contracts::orders::v1::{GetOrderRequest, ListOrdersRequest};
use minishop_testkit::database::Engine;
use tonic_types::StatusExt as _;

use crate::harness::B;
use crate::world::World;

pub async fn an_id_is_a_uuid_and_an_absent_order_is_not_found(world: &World) {
    let api = world.api().await;
    for id in ["0190163d-8694-739b-aea5-966c26f8ad91", "00000000-0000-0000-0000-000000000000"] {
        let answer = api.get(&format!("/orders/{id}")).await;
        assert_eq!((answer.status, answer.refusal().0.as_str()), (404, "ORDER_NOT_FOUND"));
    }
    for id in [
        "123",
        "0190163d8694739baea5966c26f8ad91",
        "..%2f..%2fmetrics",
        "%00",
        "%zz",
        "%ff",
        "urn:uuid:0190163d-8694-739b-aea5-966c26f8ad91",
        "%7b0190163d-8694-739b-aea5-966c26f8ad91%7d",
    ] {
        let answer = api.get(&format!("/orders/{id}")).await;
        assert_eq!(answer.refusal().1, BTreeSet::from(["orderId INVALID_FORMAT".to_owned()]), "{id}");
    }
    let nil = api.get("/orders/00000000-0000-0000-0000-000000000000").await;
    let absent = api.get("/orders/0190163d-8694-439b-aea5-966c26f8ad91").await;
    assert_eq!((&absent.body, absent.status), (&nil.body, 404), "the same bytes");
    let mut client = api.client().await;
    let mut get = async |id: &str| client.get_order(GetOrderRequest { order_id: id.to_owned() }).await.unwrap_err();
    assert_eq!(get("0190163d-8694-739b-aea5-966c26f8ad91").await.code(), tonic::Code::NotFound);
    for (id, reason) in [("", "REQUIRED"), ("123", "INVALID_FORMAT")] {
        let status = get(id).await;
        let found = status.get_error_details().bad_request().unwrap().field_violations[0].clone();
        assert_eq!((found.field.as_str(), found.reason.as_str()), ("order_id", reason));
    }
}

pub async fn wrong_list_parameters_are_named(world: &World) {
    let api = world.api().await;
    for (query, expected) in [
        ("pageSize=-1", "pageSize OUT_OF_RANGE"),
        ("pageSize=501", "pageSize OUT_OF_RANGE"),
        ("pageSize=many", "pageSize WRONG_TYPE"),
        ("pageToken=garbage!", "pageToken INVALID_TOKEN"),
        ("status=lost", "status UNKNOWN_VALUE"),
        ("status=CREATED", "status UNKNOWN_VALUE"),
        ("status=1", "status UNKNOWN_VALUE"),
        ("pagesize=3", "pagesize UNKNOWN_FIELD"),
        ("status=created&status=failed", "status DUPLICATE_FIELD"),
        ("customerId=%00", "customerId INVALID_CHARACTER"),
        (&format!("customerId={}", "x".repeat(129)), "customerId TOO_LONG"),
        (&format!("pageToken={}", "A".repeat(513)), "pageToken INVALID_TOKEN"),
    ] {
        let answer = api.get(&format!("/orders?{query}")).await;
        assert_eq!((answer.status, answer.refusal().1), (400, BTreeSet::from([expected.to_owned()])), "{query}");
    }
    for query in ["pageSize=0", "pageSize=500", "customerId=&status=&pageSize=&pageToken=", "customerId=nobody"] {
        assert_eq!(api.get(&format!("/orders?{query}")).await.json()["orders"], serde_json::json!([]), "{query}");
    }
}

pub async fn pages_hold_every_order_once_while_new_ones_come(world: &World) {
    let api = world.api().await;
    let mut made = HashSet::new();
    for _ in 0..7 {
        made.insert(api.post("", B).await.json()["orderId"].as_str().unwrap().to_owned());
    }
    let (mut seen, mut token, mut size) = (Vec::new(), String::new(), 3);
    loop {
        let page = api.get(&format!("/orders?customerId=c1&pageSize={size}&pageToken={token}")).await.json();
        seen.extend(page["orders"].as_array().unwrap().iter().map(|o| o["orderId"].as_str().unwrap().to_owned()));
        token = page["nextPageToken"].as_str().unwrap().to_owned();
        if token.is_empty() {
            break;
        }
        api.post("", B).await;
        let other = api.get(&format!("/orders?customerId=c2&pageToken={token}")).await;
        assert_eq!(other.refusal().1, BTreeSet::from(["pageToken INVALID_TOKEN".to_owned()]));
        size = 2;
    }
    assert!(seen.is_sorted_by(|a, b| a > b), "newest first");
    assert_eq!((seen.len(), seen.into_iter().collect::<HashSet<_>>()), (7, made));
}

pub async fn a_page_of_large_orders_ends_early_and_goes_on(world: &World) {
    const ORDERS: usize = 120;
    let api = world.api().await;
    let line = format!(r#"{{"productId":"{}","qty":1,"price":0.01}}"#, "\u{1f600}".repeat(128));
    let large = format!(r#"{{"customerId":"c1","items":[{}]}}"#, vec![line.as_str(); 100].join(","));
    for _ in 0..ORDERS {
        assert_eq!(api.post("", &large).await.status, 201);
    }
    // A client with the default limit of 4 MiB.
    let mut client = api.client().await;
    let (mut seen, mut token, mut pages) = (HashSet::new(), String::new(), 0);
    loop {
        let request = ListOrdersRequest { page_size: 500, page_token: token, ..ListOrdersRequest::default() };
        let page = client.list_orders(request.clone()).await.unwrap().into_inner();
        let path = format!("/orders?pageSize=500&pageToken={}", request.page_token);
        let rest = api.get(&path).await.json();
        assert_eq!(rest["orders"].as_array().unwrap().len(), page.orders.len(), "both protocols cut alike");
        assert_eq!(rest["nextPageToken"], page.next_page_token.as_str());
        seen.extend(page.orders.into_iter().map(|order| order.order_id));
        (token, pages) = (page.next_page_token, pages + 1);
        if token.is_empty() {
            break;
        }
    }
    assert_eq!((seen.len(), pages), (ORDERS, 2));
}

pub async fn a_rare_status_is_found_over_short_pages(world: &World) {
    const ORDERS: usize = 25_000;
    let api = world.api().await;
    let (id, zeros) = match world.engine {
        Engine::Sqlite => ("unhex(printf('00000000000070008000%012x', n))", "zeroblob(32)"),
        Engine::Postgres => ("('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid", "decode(repeat('00', 32), 'hex')"),
    };
    let time = api.database.time(1_700_000_000_000);
    // Order 1, the oldest, and order 9000 have failed.
    api.database
        .sql(&format!(
            "WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < {ORDERS}) \
             INSERT INTO orders (order_id, client_id, idempotency_key, fingerprint, customer_id, status, version, total_minor, items, \
             correlation_id, created_event_id, created_at) SELECT {id}, 'anonymous', 'k' || n, {zeros}, 'c1', \
             CASE WHEN n IN (1, 9000) THEN 'failed' ELSE 'processed' END, 2, 100, '[]', 'c', {id}, {time} FROM counted"
        ))
        .await;
    for path in ["/orders?status=failed", "/orders?status=failed&customerId=c1"] {
        let (mut found, mut token) = (Vec::new(), String::new());
        loop {
            let page = api.get(&format!("{path}&pageToken={token}")).await.json();
            found.push(page["orders"].as_array().unwrap().len());
            page["nextPageToken"].as_str().unwrap().clone_into(&mut token);
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(found, [0, 1, 1], "{path}: 10,000 are looked at for each page");
    }
    let created = api.get("/orders?status=created").await.json();
    assert!(created["orders"].as_array().unwrap().is_empty() && !created["nextPageToken"].as_str().unwrap().is_empty());
    let all = api.get("/orders?pageSize=500").await.json();
    assert_eq!(all["orders"].as_array().unwrap().len(), 500, "without a status nothing is left out");
}

pub async fn orders_of_one_millisecond_are_listed_in_their_order(world: &World) {
    let api = world.api_at_one_moment().await;
    let mut made = Vec::new();
    for _ in 0..20 {
        made.push(api.post("", B).await.json()["orderId"].clone());
    }
    made.reverse();
    let listed = api.get("/orders").await.json()["orders"].clone();
    let listed: Vec<_> = listed.as_array().unwrap().iter().map(|order| order["orderId"].clone()).collect();
    assert_eq!(listed, made, "newest first");
}

pub async fn operators_see_what_waits(world: &World) {
    let api = world.api().await;
    api.post("", B).await;
    let status = api.get("/ops/status").await.json();
    assert_eq!(status["outboxDepth"], 1);
    assert_eq!(status["parked"], serde_json::json!({"retrying": 0, "waiting": 0, "dead": 0}));
    let letters = api.get("/ops/dead-letters").await.json();
    assert_eq!(letters, serde_json::json!({"deadLetters": [], "nextPageToken": ""}));
}

pub async fn wrong_list_parameters_are_named_over_grpc(world: &World) {
    let api = world.api().await;
    let mut client = api.client().await;
    let base = ListOrdersRequest::default;
    for (message, expected) in [
        (ListOrdersRequest { page_size: -1, ..base() }, "page_size OUT_OF_RANGE"),
        (ListOrdersRequest { page_size: 501, ..base() }, "page_size OUT_OF_RANGE"),
        (ListOrdersRequest { status: 99, ..base() }, "status UNKNOWN_VALUE"),
        (ListOrdersRequest { page_token: "garbage!".into(), ..base() }, "page_token INVALID_TOKEN"),
        (ListOrdersRequest { page_token: "A".repeat(513), ..base() }, "page_token INVALID_TOKEN"),
        (ListOrdersRequest { customer_id: "x".repeat(129), ..base() }, "customer_id TOO_LONG"),
        (ListOrdersRequest { customer_id: "\0".into(), ..base() }, "customer_id INVALID_CHARACTER"),
    ] {
        let status = client.list_orders(message).await.unwrap_err();
        let found = status.get_error_details().bad_request().unwrap().field_violations[0].clone();
        assert_eq!(format!("{} {}", found.field, found.reason), expected);
    }
    assert!(client.list_orders(base()).await.unwrap().into_inner().orders.is_empty());
}

pub async fn a_token_that_was_changed_is_refused_with_the_same_bytes(world: &World) {
    let api = world.api().await;
    for _ in 0..2 {
        api.works().await;
    }
    let token = api.get("/orders?pageSize=1").await.json()["nextPageToken"].as_str().unwrap().to_owned();
    let mut changed = token.clone().into_bytes();
    changed[7] = if changed[7] == b'A' { b'B' } else { b'A' };
    let changed = String::from_utf8(changed).unwrap();
    let mut answers = HashSet::new();
    for query in [format!("pageToken={changed}"), "pageToken=garbage!".to_owned(), format!("status=created&pageToken={token}")] {
        let answer = api.get(&format!("/orders?{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
        answers.insert(answer.body);
    }
    assert_eq!(answers.len(), 1);
    assert_eq!(api.get(&format!("/orders?pageSize=7&pageToken={token}")).await.json()["orders"].as_array().unwrap().len(), 1);
}

pub async fn lists_filter_by_status_and_customer(world: &World) {
    let api = world.api().await;
    api.works().await;
    api.database.sql("UPDATE orders SET status = 'processed', version = 2").await;
    api.works().await;
    api.post("", B.replace("c1", "c2")).await;
    for (query, count) in
        [("", 3), ("status=created", 2), ("status=processed", 1), ("status=created&customerId=c1", 1), ("status=failed", 0)]
    {
        let orders = api.get(&format!("/orders?{query}")).await.json()["orders"].clone();
        assert_eq!(orders.as_array().unwrap().len(), count, "{query}");
    }
}
