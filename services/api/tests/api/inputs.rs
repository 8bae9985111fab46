//! Wrong inputs and their answers.

use std::collections::BTreeSet;

use minishop_contracts::json::{self, JsonError};
use minishop_contracts::orders::v1::CreateOrderRequest;
use tonic_types::StatusExt as _;

use crate::harness::{Api, B, api};

fn line(line: &str) -> String {
    format!(r#"{{"customerId":"c1","items":[{line}]}}"#)
}

fn price(price: &str) -> String {
    line(&format!(r#"{{"productId":"p1","qty":1,"price":{price}}}"#))
}

/// Sends a body over REST, and over gRPC too where a message can carry it; both must refuse the same fields.
async fn refused(api: &Api, body: &str, expected: &[&str]) {
    let answer = api.post("same-key", body).await;
    let (code, fields) = answer.refusal();
    let expected: BTreeSet<String> = expected.iter().map(ToString::to_string).collect();
    assert_eq!((answer.status, code.as_str(), &fields), (400, "VALIDATION_FAILED", &expected), "{body}");
    let message = match json::decode_command::<CreateOrderRequest>(body.as_bytes()) {
        Ok(message) => message,
        Err(JsonError::Fields(_) | JsonError::Syntax(_)) => return,
    };
    let status = api.client().await.create_order(message).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "{body}");
    let details = status.get_error_details();
    let violations = &details.bad_request().unwrap().field_violations;
    let fields: BTreeSet<String> = violations
        .iter()
        .map(|v| format!("{} {}", v.field.replace("customer_id", "customerId").replace("product_id", "productId"), v.reason))
        .collect();
    assert_eq!(fields, expected, "gRPC {body}");
}

async fn accepted(api: &Api, body: &str, total: f64) {
    let answer = api.post("", body).await;
    assert_eq!((answer.status, answer.json()["total"].as_f64()), (201, Some(total)), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_fields_are_named_and_their_key_stays_free() {
    let api = api().await;
    let long = "x".repeat(129);
    let customer = |text: &str| B.replace("\"c1\"", text);
    let product = |text: &str| B.replace("\"p1\"", text);
    let qty = |text: &str| B.replace(":2,", &format!(":{text},"));
    let many = format!(r#"{{"customerId":"c1","items":[{}]}}"#, vec![r#"{"productId":"","qty":0}"#; 101].join(","));
    let rows: Vec<(String, &[&str])> = vec![
        (B.replace("\"customerId\":\"c1\",", ""), &["customerId REQUIRED"]),
        (customer("\"\""), &["customerId REQUIRED"]),
        (customer(&format!("\"{long}\"")), &["customerId TOO_LONG"]),
        (customer("\" c1\""), &["customerId INVALID_FORMAT"]),
        (customer("\"c1\u{a0}\""), &["customerId INVALID_FORMAT"]),
        (customer("\"c\\u00001\""), &["customerId INVALID_CHARACTER"]),
        (customer("\"c\\u202e1\""), &["customerId INVALID_CHARACTER"]),
        (customer("7"), &["customerId WRONG_TYPE"]),
        (customer("null"), &["customerId WRONG_TYPE"]),
        (line("null"), &["items[0] WRONG_TYPE"]),
        (line(""), &["items REQUIRED"]),
        (r#"{"customerId":"c1","items":null}"#.into(), &["items WRONG_TYPE"]),
        (many, &["items TOO_MANY"]),
        (product("\"\""), &["items[0].productId REQUIRED"]),
        (product("\"p\\u0007\""), &["items[0].productId INVALID_CHARACTER"]),
        (qty("0"), &["items[0].qty OUT_OF_RANGE"]),
        (qty("2147483647"), &["items[0].qty OUT_OF_RANGE"]),
        (qty("1.5"), &["items[0].qty WRONG_TYPE"]),
        (qty("4294967298"), &["items[0].qty WRONG_TYPE"]),
        (line(r#"{"productId":"p1","qty":1}"#), &["items[0].price REQUIRED"]),
        (price("\"ten\""), &["items[0].price WRONG_TYPE"]),
        (price("-0.01"), &["items[0].price OUT_OF_RANGE"]),
        (price("10000000000000"), &["items[0].price OUT_OF_RANGE"]),
        (price("\"NaN\""), &["items[0].price OUT_OF_RANGE"]),
        (price("\"Infinity\""), &["items[0].price OUT_OF_RANGE"]),
        (price("10.555"), &["items[0].price TOO_MANY_DECIMALS"]),
        (price("0.30000000000000004"), &["items[0].price TOO_MANY_DECIMALS"]),
        (price("3746.9900000000002"), &["items[0].price TOO_MANY_DECIMALS"]),
        (line(r#"{"productId":"p1","qty":2,"price":9999999999999.99}"#), &["items TOTAL_TOO_LARGE"]),
        (B.replace("]}", "],\"currency\":\"usd\"}"), &["currency INVALID_FORMAT"]),
        (B.replace("]}", "],\"currency\":\"\"}"), &["currency INVALID_FORMAT"]),
        (B.replace("]}", "],\"currency\":\"DEM\"}"), &["currency UNKNOWN_VALUE"]),
        (B.replace("]}", "],\"currency\":\"JPY\"}"), &["items[0].price TOO_MANY_DECIMALS"]),
        (B.replace("]}", "],\"custmerId\":\"x\"}"), &["custmerId UNKNOWN_FIELD"]),
        (B.replace("\"qty\"", "\"quantitty\":5,\"qty\""), &["items[0].quantitty UNKNOWN_FIELD"]),
        (B.replace("]}", "],\"customer_id\":\"x\"}"), &["customerId DUPLICATE_FIELD"]),
    ];
    for (body, expected) in &rows {
        refused(&api, body, expected).await;
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
    assert!(api.events().await.is_empty(), "refusals write nothing");
    let first = api.post("same-key", B).await;
    assert_eq!((first.status, first.header("idempotent-replayed")), (201, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_lists_twenty_fields_and_counts_them_all() {
    let api = api().await;
    let fifty = format!(r#"{{"customerId":"c1","items":[{}]}}"#, vec![r#"{"productId":"p","qty":0,"price":1}"#; 50].join(","));
    let answer = api.post("", &fifty).await;
    assert_eq!(answer.refusal().1.len(), 20);
    assert!(answer.json()["detail"].as_str().unwrap().contains("50"));
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_are_exact() {
    let api = api().await;
    for (body, total) in [
        (r#"{"customer_id":"c1","items":[{"product_id":"p1","qty":"2","price":"10.5"}]}"#.to_owned(), 21.0),
        (price("-0.0"), 0.0),
        (price("9999999999999.99"), 9_999_999_999_999.99),
        (line(r#"{"productId":"p","qty":3,"price":0.1}"#), 0.3),
        (line(r#"{"productId":"p","qty":100,"price":1.15}"#), 115.0),
        (line(r#"{"productId":"p","qty":7,"price":19.99}"#), 139.93),
        (B.replace("]}", "],\"currency\":null}"), 21.0),
        (B.replace("10.5", "1.234").replace("]}", "],\"currency\":\"KWD\"}"), 2.468),
        (B.replace("c1", "'; DROP TABLE orders;--"), 21.0),
    ] {
        accepted(&api, &body, total).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_json_object_is_refused_with_its_place() {
    let api = api().await;
    let deep = "[".repeat(100_000);
    let nested = format!("{}{}", "{\"a\":".repeat(200), "}".repeat(200));
    for body in [
        "customerId=c1",
        "{\"a\":1,}",
        "{}{}",
        "\u{feff}{}",
        "{'a':1}",
        "{\"customerId\":NaN}",
        "{\"customerId\":01}",
        "[]",
        "\"x\"",
        "null",
        "7",
        deep.as_str(),
        nested.as_str(),
    ] {
        let answer = api.post("k", body).await;
        assert_eq!((answer.status, answer.refusal().0.as_str()), (400, "JSON_INVALID"), "{}", &body[..body.len().min(40)]);
        assert!(answer.json()["detail"].as_str().unwrap().contains("ine "), "{answer:?}");
    }
    assert_eq!(api.post("k", b"{\"customerId\":\"\xff\"}").await.refusal().0, "JSON_INVALID");
    let empty = api.send("POST", "/orders", &[("content-type", "application/json"), ("content-length", "0")], b"").await;
    assert_eq!(empty.refusal().0, "JSON_INVALID");
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_methods_media_types_and_sizes_answer_with_problems() {
    let api = api().await;
    for path in ["/nope", "//orders", "/orders/", "/ORDERS", "/metrics"] {
        let answer = api.get(path).await;
        assert_eq!((answer.status, answer.refusal().0.as_str()), (404, "ROUTE_NOT_FOUND"), "{path}");
    }
    let id = "/orders/0190163d-8694-739b-aea5-966c26f8ad91";
    for (method, path) in [("PUT", "/orders"), ("DELETE", "/orders"), ("POST", id), ("TRACE", "/orders"), ("OPTIONS", "/orders")]
    {
        let answer = api.send(method, path, &[("origin", "https://evil.example")], b"").await;
        assert_eq!((answer.status, answer.refusal().0.as_str()), (405, "METHOD_NOT_ALLOWED"), "{method} {path}");
        assert!(answer.header("allow").is_some_and(|allow| allow.contains("GET")), "{answer:?}");
        assert!(!answer.head.to_lowercase().contains("access-control"));
    }
    for headers in [
        &[][..],
        &[("content-type", "text/plain")],
        &[("content-type", "application/json; charset=latin1")],
        &[("content-type", "application/json"), ("content-encoding", "gzip")],
    ] {
        let answer = api.send("POST", "/orders", headers, B.as_bytes()).await;
        assert_eq!((answer.status, answer.refusal().0.as_str()), (415, "MEDIA_TYPE_UNSUPPORTED"), "{headers:?}");
    }
    let padded = format!("{B}{}", " ".repeat(262_144 - B.len()));
    assert_eq!(api.post("", &padded).await.status, 201);
    let large = api
        .raw(b"POST /orders HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 262145\r\n\r\n")
        .await;
    assert_eq!((large.status, large.refusal().0.as_str()), (413, "BODY_TOO_LARGE"));
    let long = api.get(&format!("/orders?customerId={}", "x".repeat(9000))).await;
    assert_eq!((long.status, long.refusal().0.as_str()), (414, "URI_TOO_LONG"));
    let foreign = api.raw(b"GET /orders HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n").await;
    assert_eq!((foreign.status, foreign.refusal().0.as_str()), (421, "HOST_NOT_ALLOWED"));
    let query = api.send("POST", "/orders?debug=1", &[("content-type", "application/json")], B.as_bytes()).await;
    assert_eq!(query.refusal().1, BTreeSet::from(["debug UNKNOWN_FIELD".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_correlation_id_outside_the_rule_is_replaced_and_a_good_one_echoed() {
    let api = api().await;
    let long = "x".repeat(129);
    for bad in ["", "with blank", "a;b", "{json}", long.as_str()] {
        let answer = api.send("GET", "/orders", &[("x-correlation-id", bad)], b"").await;
        let echoed = answer.header("x-correlation-id").unwrap().to_owned();
        assert!(answer.status == 200 && echoed.len() == 36 && echoed != bad, "{bad}");
    }
    let refused = api.send("GET", "/nope", &[("x-correlation-id", &long[..128])], b"").await;
    assert_eq!(refused.header("x-correlation-id"), Some(&long[..128]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_has_passed_is_no_work_and_an_odd_one_is_ignored() {
    let api = api().await;
    let message = || json::decode_command::<CreateOrderRequest>(B.as_bytes()).unwrap();
    let call = async |timeout: &str| {
        let mut request = tonic::Request::new(message());
        request.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
        api.client().await.create_order(request).await.map(|_| ()).map_err(|status| status.code())
    };
    assert_eq!(call("0n").await, Err(tonic::Code::DeadlineExceeded));
    for odd in ["1x", "123456789S", "99999999H"] {
        assert_eq!(call(odd).await, Ok(()), "{odd}");
    }
    assert_eq!(api.events().await.len(), 3);
}
