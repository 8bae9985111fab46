//! Reads: one order, pages of orders, and the operators' view.

use std::collections::{BTreeSet, HashSet};

use crate::harness::{B, api};

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_a_uuid_and_an_absent_order_is_not_found() {
    let api = api().await;
    for id in ["0190163d-8694-739b-aea5-966c26f8ad91", "00000000-0000-0000-0000-000000000000"] {
        let answer = api.get(&format!("/orders/{id}")).await;
        assert_eq!((answer.status, answer.refusal().0.as_str()), (404, "ORDER_NOT_FOUND"));
    }
    for id in ["123", "0190163d8694739baea5966c26f8ad91", "..%2f..%2fmetrics", "%00", "%zz", "%ff", "urn:uuid:x"] {
        let answer = api.get(&format!("/orders/{id}")).await;
        assert_eq!(answer.refusal().1, BTreeSet::from(["orderId INVALID_FORMAT".to_owned()]), "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_list_parameters_are_named() {
    let api = api().await;
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
    ] {
        let answer = api.get(&format!("/orders?{query}")).await;
        assert_eq!((answer.status, answer.refusal().1), (400, BTreeSet::from([expected.to_owned()])), "{query}");
    }
    for query in ["pageSize=0", "pageSize=500", "customerId=&status=&pageSize=&pageToken=", "customerId=nobody"] {
        assert_eq!(api.get(&format!("/orders?{query}")).await.json()["orders"], serde_json::json!([]), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_hold_every_order_once_while_new_ones_come() {
    let api = api().await;
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

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_what_waits() {
    let api = api().await;
    api.post("", B).await;
    let status = api.get("/ops/status").await.json();
    assert_eq!(status["outboxDepth"], 1);
    assert_eq!(status["parked"], serde_json::json!({"retrying": 0, "waiting": 0, "dead": 0}));
    let letters = api.get("/ops/dead-letters").await.json();
    assert_eq!(letters, serde_json::json!({"deadLetters": [], "nextPageToken": ""}));
}
