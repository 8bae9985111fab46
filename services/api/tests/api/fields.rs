//! Fields of a new order: which are refused under which name, and which are kept.

use std::collections::BTreeSet;

use minishop_contracts::json::{self, JsonError};
use minishop_contracts::orders::v1::{CreateOrderRequest, OrderItem};
use serde_json::Value;
use tonic_types::StatusExt as _;

use crate::harness::{Api, B};
use crate::world::World;

fn line(line: &str) -> String {
    format!(r#"{{"customerId":"c1","items":[{line}]}}"#)
}

fn price(price: &str) -> String {
    line(&format!(r#"{{"productId":"p1","qty":1,"price":{price}}}"#))
}

fn customer(text: &str) -> String {
    B.replace("\"c1\"", text)
}

fn product(text: &str) -> String {
    B.replace("\"p1\"", text)
}

fn qty(text: &str) -> String {
    B.replace(":2,", &format!(":{text},"))
}

/// The base order with more members.
fn also(members: &str) -> String {
    B.replace("]}", &format!("],{members}}}"))
}

fn lines(count: usize, line: &str) -> String {
    format!(r#"{{"customerId":"c1","items":[{}]}}"#, vec![line; count].join(","))
}

/// Returns the fields that gRPC refuses, under their REST names.
pub async fn refused_over_grpc(api: &Api, message: CreateOrderRequest) -> BTreeSet<String> {
    let status = api.client().await.create_order(message).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    let details = status.get_error_details();
    assert_eq!(details.error_info().map(|info| info.reason.as_str()), Some("VALIDATION_FAILED"));
    let violations = &details.bad_request().unwrap().field_violations;
    let rest = |field: &str| field.replace("customer_id", "customerId").replace("product_id", "productId");
    violations.iter().map(|v| format!("{} {}", rest(&v.field), v.reason)).collect()
}

/// Sends a body over REST, and over gRPC if a message can carry it; both must refuse the same fields.
async fn refused(api: &Api, body: &str, expected: &[&str]) {
    let answer = api.post("same-key", body).await;
    let (code, fields) = answer.refusal();
    let expected: BTreeSet<String> = expected.iter().map(ToString::to_string).collect();
    assert_eq!((answer.status, code.as_str(), &fields), (400, "VALIDATION_FAILED", &expected), "{body}");
    match json::decode_command::<CreateOrderRequest>(body.as_bytes()) {
        Ok(message) => assert_eq!(refused_over_grpc(api, message).await, expected, "gRPC {body}"),
        Err(JsonError::Fields(_) | JsonError::Syntax(_)) => {}
    }
}

async fn accepted(api: &Api, body: &str, total: f64) -> Value {
    let answer = api.post("", body).await;
    assert_eq!((answer.status, answer.json()["total"].as_f64()), (201, Some(total)), "{body}");
    let order = api.get(answer.header("location").unwrap()).await.json();
    assert_eq!(order["total"].as_f64(), Some(total), "{body}");
    order
}

fn wrong_customers_and_items() -> Vec<(String, &'static [&'static str])> {
    let long = "x".repeat(129);
    vec![
        (B.replace("\"customerId\":\"c1\",", ""), &["customerId REQUIRED"]),
        (customer("\"\""), &["customerId REQUIRED"]),
        (customer(&format!("\"{long}\"")), &["customerId TOO_LONG"]),
        (customer("\" c1\""), &["customerId INVALID_FORMAT"]),
        (customer("\"c1\u{a0}\""), &["customerId INVALID_FORMAT"]),
        (customer("\"   \""), &["customerId INVALID_FORMAT"]),
        (customer("\"c\\u00001\""), &["customerId INVALID_CHARACTER"]),
        (customer("\"c\\n1\""), &["customerId INVALID_CHARACTER"]),
        (customer("\"c\\u202e1\""), &["customerId INVALID_CHARACTER"]),
        (customer("\"c\\u200b1\""), &["customerId INVALID_CHARACTER"]),
        (customer("\"c\\ufeff1\""), &["customerId INVALID_CHARACTER"]),
        (customer("7"), &["customerId WRONG_TYPE"]),
        (customer("null"), &["customerId WRONG_TYPE"]),
        (customer("[\"c1\"]"), &["customerId WRONG_TYPE"]),
        (r#"{"customerId":"c1","items":{"productId":"p1"}}"#.into(), &["items WRONG_TYPE"]),
        (r#"{"customerId":"c1","items":null}"#.into(), &["items WRONG_TYPE"]),
        (line("null"), &["items[0] WRONG_TYPE"]),
        (r#"{"customerId":"c1"}"#.into(), &["items REQUIRED"]),
        (line(""), &["items REQUIRED"]),
        (lines(101, r#"{"productId":"","qty":0}"#), &["items TOO_MANY"]),
        (B.replace("\"productId\":\"p1\",", ""), &["items[0].productId REQUIRED"]),
        (product("\"\""), &["items[0].productId REQUIRED"]),
        (product(&format!("\"{long}\"")), &["items[0].productId TOO_LONG"]),
        (product("\" p1\""), &["items[0].productId INVALID_FORMAT"]),
        (product("\"p\\u0007\""), &["items[0].productId INVALID_CHARACTER"]),
    ]
}

fn wrong_quantities_and_prices() -> Vec<(String, &'static [&'static str])> {
    let mut rows: Vec<(String, &'static [&'static str])> = vec![
        (B.replace("\"qty\":2,", ""), &["items[0].qty OUT_OF_RANGE"]),
        (line(r#"{"productId":"p1","qty":2,"price":9999999999999.99}"#), &["items TOTAL_TOO_LARGE"]),
        (lines(100, r#"{"productId":"p1","qty":1000000,"price":9999999999999.99}"#), &["items TOTAL_TOO_LARGE"]),
        (line(r#"{"productId":"p1","qty":1}"#), &["items[0].price REQUIRED"]),
        (price("null"), &["items[0].price REQUIRED"]),
    ];
    for out in ["0", "-1", "1000001", "2147483647"] {
        rows.push((qty(out), &["items[0].qty OUT_OF_RANGE"]));
    }
    for other in ["1.5", "2.0", "1e2", "\"two\"", "true", "null", "4294967298"] {
        rows.push((qty(other), &["items[0].qty WRONG_TYPE"]));
    }
    for other in ["\"ten\"", "\" 1\"", "true"] {
        rows.push((price(other), &["items[0].price WRONG_TYPE"]));
    }
    for out in ["-0.01", "10000000000000", "1e300", "\"NaN\"", "\"Infinity\"", "\"-Infinity\"", "\"1e400\""] {
        rows.push((price(out), &["items[0].price OUT_OF_RANGE"]));
    }
    for fine in ["10.555", "1e-3", "0.1000000001", "5e-324", "0.30000000000000004", "3746.9900000000002", "1e-400"] {
        rows.push((price(fine), &["items[0].price TOO_MANY_DECIMALS"]));
        rows.push((price(&format!("\"{fine}\"")), &["items[0].price TOO_MANY_DECIMALS"]));
    }
    for rounded in ["10.4999999999999999999999", "10.5000000000000000000001", "0.00999999999999999999999999999"] {
        rows.push((price(rounded), &["items[0].price TOO_MANY_DECIMALS"]));
        rows.push((
            line(&format!(r#"{{"productId":"","qty":0,"price":{rounded}}}"#)),
            &["items[0].productId REQUIRED", "items[0].qty OUT_OF_RANGE", "items[0].price TOO_MANY_DECIMALS"],
        ));
    }
    rows
}

fn wrong_currencies_and_names() -> Vec<(String, &'static [&'static str])> {
    let mut rows: Vec<(String, &'static [&'static str])> = vec![
        (also("\"currency\":\"JPY\""), &["items[0].price TOO_MANY_DECIMALS"]),
        (also("\"currency\":\"KWD\"").replace("10.5", "1.2345"), &["items[0].price TOO_MANY_DECIMALS"]),
        (also("\"custmerId\":\"x\""), &["custmerId UNKNOWN_FIELD"]),
        (also("\"total\":21"), &["total UNKNOWN_FIELD"]),
        (also("\"status\":\"processed\""), &["status UNKNOWN_FIELD"]),
        (B.replace("\"qty\"", "\"quantitty\":5,\"qty\""), &["items[0].quantitty UNKNOWN_FIELD"]),
        (also("\"customerId\":\"c1\""), &["customerId DUPLICATE_FIELD"]),
        (also("\"customer_id\":\"x\""), &["customerId DUPLICATE_FIELD"]),
    ];
    for form in ["usd", "US", "usd1", ""] {
        rows.push((also(&format!("\"currency\":\"{form}\"")), &["currency INVALID_FORMAT"]));
    }
    for unknown in ["ABC", "XXX", "XAU", "DEM"] {
        rows.push((also(&format!("\"currency\":\"{unknown}\"")), &["currency UNKNOWN_VALUE"]));
    }
    rows
}

pub async fn wrong_fields_are_named_and_their_key_stays_free(world: &World) {
    let api = world.api().await;
    for rows in [wrong_customers_and_items(), wrong_quantities_and_prices(), wrong_currencies_and_names()] {
        for (body, expected) in &rows {
            refused(&api, body, expected).await;
        }
    }
    let all = r#"{"custmerId":"x","items":[{"productId":"","qty":0,"price":1.999},{"productId":"p","qty":"two","price":-1}]}"#;
    let seven = [
        "customerId REQUIRED",
        "custmerId UNKNOWN_FIELD",
        "items[0].productId REQUIRED",
        "items[0].qty OUT_OF_RANGE",
        "items[0].price TOO_MANY_DECIMALS",
        "items[1].qty WRONG_TYPE",
        "items[1].price OUT_OF_RANGE",
    ];
    refused(&api, all, &seven).await;
    let tip = api.post("", also("\"custmerId\":\"x\"")).await.json();
    assert!(tip["errors"][0]["message"].as_str().unwrap().contains("customerId"), "did you mean: {tip}");
    assert!(api.events().await.is_empty(), "refusals write nothing");
    let first = api.post("same-key", B).await;
    assert_eq!((first.status, first.header("idempotent-replayed")), (201, None));
}

pub async fn doubles_that_are_no_amount_are_refused_over_grpc(world: &World) {
    let api = world.api().await;
    for price in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let items = vec![OrderItem { product_id: "p".into(), qty: 1, price: Some(price) }];
        let message = CreateOrderRequest { customer_id: "c1".into(), items, currency: None };
        let expected = BTreeSet::from(["items[0].price OUT_OF_RANGE".to_owned()]);
        assert_eq!(refused_over_grpc(&api, message).await, expected, "{price}");
    }
    api.works().await;
}

pub async fn a_refusal_lists_twenty_fields_and_counts_them_all(world: &World) {
    let api = world.api().await;
    let answer = api.post("", lines(50, r#"{"productId":"p","qty":0,"price":1}"#)).await;
    assert_eq!(answer.refusal().1.len(), 20);
    assert!(answer.json()["detail"].as_str().unwrap().contains("50"));
}

pub async fn totals_are_exact(world: &World) {
    let api = world.api().await;
    for (body, total) in [
        (r#"{"customer_id":"c1","items":[{"product_id":"p1","qty":"2","price":"10.5"}]}"#.to_owned(), 21.0),
        (qty("1"), 10.5),
        (qty("1000000"), 10_500_000.0),
        (price("0.01"), 0.01),
        (price("10.50"), 10.5),
        (price("1e1"), 10.0),
        (price("1e-2"), 0.01),
        (price("-0.0"), 0.0),
        (price("4399074046731.48"), 4_399_074_046_731.48),
        (price("9999999999999.99"), 9_999_999_999_999.99),
        (line(r#"{"productId":"p","qty":3,"price":0.1}"#), 0.3),
        (line(r#"{"productId":"p","qty":1,"price":0.1},{"productId":"p","qty":1,"price":0.2}"#), 0.3),
        (line(r#"{"productId":"p","qty":100,"price":1.15}"#), 115.0),
        (line(r#"{"productId":"p","qty":7,"price":19.99}"#), 139.93),
        (lines(100, r#"{"productId":"p","qty":1,"price":1}"#), 100.0),
        (also("\"currency\":null"), 21.0),
        (also("\"currency\":\"BRL\""), 21.0),
        (also("\"currency\":\"JPY\"").replace("10.5", "10"), 20.0),
        (also("\"currency\":\"KWD\"").replace("10.5", "1.234"), 2.468),
    ] {
        accepted(&api, &body, total).await;
    }
}

pub async fn texts_are_kept_byte_for_byte(world: &World) {
    let api = world.api().await;
    let emoji = "\u{1f600}".repeat(128);
    let texts = [
        "a",
        &emoji,
        "Café & Filhos, Ltda. #7",
        "a@b.example",
        "'; DROP TABLE orders;--",
        "../../etc/passwd",
        "<script>",
        "\u{e9}",
        "e\u{301}",
    ];
    for text in texts {
        let order = accepted(&api, &B.replace("c1", text).replace("p1", text), 21.0).await;
        assert_eq!((order["customerId"].as_str(), order["items"][0]["productId"].as_str()), (Some(text), Some(text)));
        let percent: String = text.bytes().fold(String::new(), |text, byte| format!("{text}%{byte:02x}"));
        let list = api.get(&format!("/orders?customerId={percent}")).await.json();
        assert_eq!(list["orders"].as_array().unwrap().len(), 1, "{text} is a customer of its own");
        let event = api.events().await.pop().unwrap().event;
        let value: Value = serde_json::from_slice(event.payload.as_ref().unwrap()).unwrap();
        assert!(texts.contains(&value["data"]["customerId"].as_str().unwrap()));
    }
}

/// Returns the data of the only event.
async fn announced(api: &Api) -> Value {
    let events = api.events().await;
    assert_eq!(events.len(), 1);
    serde_json::from_slice::<Value>(events[0].event.payload.as_ref().unwrap()).unwrap()["data"].clone()
}

pub async fn a_free_order_prints_its_zeros_everywhere(world: &World) {
    let api = world.api().await;
    let answer = api.post("", price("0")).await;
    assert!(String::from_utf8_lossy(&answer.body).contains("\"total\":0}"), "{answer:?}");
    let read = String::from_utf8(api.get(answer.header("location").unwrap()).await.body).unwrap();
    assert!(read.contains("\"total\":0,") && read.contains("\"price\":0}"), "{read}");
    let data = announced(&api).await;
    assert_eq!((data["total"].as_i64(), data["items"][0]["price"].as_i64()), (Some(0), Some(0)));
}

pub async fn an_absent_currency_stays_absent_and_a_given_one_stays(world: &World) {
    for (body, currency) in [(B.to_owned(), None), (also("\"currency\":\"BRL\""), Some("BRL"))] {
        let api = world.api().await;
        let order = accepted(&api, &body, 21.0).await;
        assert_eq!(order.get("currency").and_then(Value::as_str), currency);
        let data = announced(&api).await;
        assert_eq!(data.get("currency").and_then(Value::as_str), currency);
        assert_eq!(data.as_object().unwrap().contains_key("currency"), currency.is_some());
    }
}
