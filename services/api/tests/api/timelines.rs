//! Timelines of orders.

use std::collections::BTreeSet;

use minishop_contracts::json;
use minishop_contracts::orders::v1::GetOrderTimelineRequest;
use serde_json::{Value, json};

use crate::cancels::{cancelled, made};
use crate::harness::{Api, B};
use crate::world::World;

const EVENT: &str = "0190163d-8694-739b-aea5-966c26f8ad91";

/// Inserts a note, as the worker does.
async fn noted(api: &Api, order: &str, kind: &str, detail: &str) {
    let (order, cause) = (api.database.id(order), api.database.id(EVENT));
    let at = api.database.time(1_760_000_000_123);
    let sql =
        format!("INSERT INTO timeline (order_id, kind, at, cause, detail) VALUES ({order}, '{kind}', {at}, {cause}, '{detail}')");
    api.database.sql(&sql).await;
}

async fn told(api: &Api, order: &str) -> Value {
    let answer = api.get(&format!("/orders/{order}/timeline")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

pub async fn an_orders_life_is_told_with_times_ids_and_causes(world: &World) {
    let api = world.api().await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{trace}-b7ad6b7169203331-01");
    let headers = [("content-type", "application/json"), ("x-correlation-id", "corr-1"), ("traceparent", parent.as_str())];
    let id = api.send("POST", "/orders", &headers, B.as_bytes()).await.json()["orderId"].as_str().unwrap().to_owned();
    let order = api.get(&format!("/orders/{id}")).await.json();
    let created = api.events().await[0].event.event_id.to_string();
    noted(&api, &id, "retried", r#"{"attempt":3,"error":"HTTP 503"}"#).await;
    noted(&api, &id, "redriven", r#"{"correlationId":"corr-ops","traceId":"0af7651916cd43dd8448eb211c80319d","by":"ann"}"#).await;
    api.send("POST", &format!("/orders/{id}/cancel"), &[("x-correlation-id", "corr-2")], b"").await;

    let timeline = told(&api, &id).await;
    let settled = api.events().await[1].event.event_id.to_string();
    let cancelled_at = timeline["entries"][3]["at"].clone();
    let cancelled_in = timeline["entries"][3]["traceId"].clone();
    assert!(cancelled_at.as_str().unwrap() >= order["createdAt"].as_str().unwrap());
    assert!(cancelled_in != trace && cancelled_in.as_str().unwrap().len() == 32, "{cancelled_in}");
    let wanted = json!({
        "orderId": id,
        "entries": [
            {"kind": "created", "at": order["createdAt"], "version": 1, "eventId": created, "causationId": "corr-1",
             "correlationId": "corr-1", "traceId": trace, "detail": {}},
            {"kind": "retried", "at": "2025-10-09T08:53:20.123Z", "version": 0, "eventId": "", "causationId": EVENT,
             "correlationId": "corr-1", "traceId": trace, "detail": {"attempt": "3", "error": "HTTP 503"}},
            {"kind": "redriven", "at": "2025-10-09T08:53:20.123Z", "version": 0, "eventId": "", "causationId": EVENT,
             "correlationId": "corr-ops", "traceId": "0af7651916cd43dd8448eb211c80319d", "detail": {"by": "ann"}},
            {"kind": "cancelled", "at": cancelled_at, "version": 2, "eventId": settled, "causationId": created,
             "correlationId": "corr-2", "traceId": cancelled_in, "detail": {}},
        ],
        "parked": [],
        "moreParked": false,
        "nextPageToken": "",
    });
    assert_eq!(timeline, wanted);
    let request = GetOrderTimelineRequest { order_id: id, ..Default::default() };
    let grpc = api.client().await.get_order_timeline(request).await.unwrap().into_inner();
    assert_eq!(serde_json::from_slice::<Value>(&json::to_vec(&grpc)).unwrap(), wanted);
}

pub async fn a_long_timeline_comes_in_pages_without_gap_or_repeat(world: &World) {
    let api = world.api().await;
    let id = made(&api).await;
    for n in 0..120 {
        noted(&api, &id, "retried", &format!(r#"{{"attempt":{n}}}"#)).await;
    }
    assert_eq!(told(&api, &id).await["entries"].as_array().unwrap().len(), 50, "the default is 50");
    for size in [1, 7, 50, 121, 500] {
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let page = api.get(&format!("/orders/{id}/timeline?pageSize={size}&pageToken={token}")).await.json();
            let entries = page["entries"].as_array().unwrap();
            assert!((1..=size).contains(&entries.len()));
            seen.extend(entries.iter().map(|entry| entry["detail"]["attempt"].as_str().map(str::to_owned)));
            page["nextPageToken"].as_str().unwrap().clone_into(&mut token);
            if token.is_empty() {
                break;
            }
        }
        let wanted: Vec<_> = std::iter::once(None).chain((0..120).map(|n| Some(n.to_string()))).collect();
        assert_eq!(seen, wanted, "pages of {size}");
    }
}

pub async fn wrong_timeline_parameters_are_named(world: &World) {
    let api = world.api().await;
    let (id, other) = (made(&api).await, made(&api).await);
    noted(&api, &other, "retried", "{}").await;
    let foreign =
        api.get(&format!("/orders/{other}/timeline?pageSize=1")).await.json()["nextPageToken"].as_str().unwrap().to_owned();
    assert!(!foreign.is_empty());
    for (query, expected) in [
        ("pageSize=-1", "pageSize OUT_OF_RANGE"),
        ("pageSize=501", "pageSize OUT_OF_RANGE"),
        ("pageSize=many", "pageSize WRONG_TYPE"),
        ("pageToken=garbage!", "pageToken INVALID_TOKEN"),
        ("pagesize=1", "pagesize UNKNOWN_FIELD"),
        (&format!("pageToken={foreign}"), "pageToken INVALID_TOKEN"),
        (&format!("orderId={other}"), "orderId DUPLICATE_FIELD"),
    ] {
        let answer = api.get(&format!("/orders/{id}/timeline?{query}")).await;
        assert_eq!((answer.status, answer.refusal().1), (400, BTreeSet::from([expected.to_owned()])), "{query}");
    }
    assert_eq!(api.get(&format!("/orders/{id}/timeline?pageSize=0&pageToken=")).await.status, 200);
}

/// Parks an event of an order, under an id that ends in `n`.
async fn parked(api: &Api, order: &str, n: usize, state: &str, blocks: bool) {
    let event = format!("0190163d-8694-739b-aea5-{n:012}");
    let (order, event, at) = (api.database.id(order), api.database.id(&event), api.database.time(1_760_000_000_123));
    let blocks = i32::from(blocks);
    let sql = format!(
        "INSERT INTO parked (consumer, record_key, blocks, state, event_id, order_id, topic, partition, source_offset, raw_headers, \
         error_code, error_message, attempts, parked_at) VALUES ('g', {bytes}, {blocks} = 1, '{state}', {event}, {order}, 't', 0, {n}, \
         {bytes}, 'HANDLER_FAILED', 'HTTP 503', 3, {at})",
        bytes = api.database.bytes("c1"),
    );
    api.database.sql(&sql).await;
}

pub async fn what_stands_in_the_lot_is_told_and_bounded(world: &World) {
    let api = world.api().await;
    let (id, other) = (made(&api).await, made(&api).await);
    parked(&api, &id, 1, "retrying", true).await;
    parked(&api, &other, 2, "dead", false).await;
    let wanted = json!([{
        "eventId": "0190163d-8694-739b-aea5-000000000001", "state": "retrying", "attempts": 3,
        "parkedAt": "2025-10-09T08:53:20.123Z", "blocks": true, "errorCode": "HANDLER_FAILED", "errorMessage": "HTTP 503",
        "needsType": "",
    }]);
    assert_eq!(told(&api, &id).await["parked"], wanted);
    for n in 3..23 {
        parked(&api, &id, n, "dead", false).await;
    }
    let told = told(&api, &id).await;
    assert_eq!((told["parked"].as_array().unwrap().len(), &told["moreParked"]), (20, &true.into()));
}

pub async fn a_cancel_makes_a_dead_event_that_holds_up_its_key_due_again(world: &World) {
    let api = world.api().await;
    let (id, other) = (made(&api).await, made(&api).await);
    parked(&api, &id, 1, "dead", true).await;
    parked(&api, &id, 2, "dead", false).await;
    parked(&api, &other, 3, "dead", true).await;
    parked(&api, &id, 4, "waiting", true).await;
    assert_eq!(cancelled(&api, &id).await.status, 200);
    let states: Vec<_> = told(&api, &id).await["parked"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| (event["state"].as_str().unwrap().to_owned(), event["attempts"].as_i64(), !event["nextAttemptAt"].is_null()))
        .collect();
    let wanted = [("retrying", 0, true), ("dead", 3, false), ("waiting", 3, false)];
    assert_eq!(states, wanted.map(|(state, attempts, due)| (state.to_owned(), Some(attempts), due)));
    assert_eq!(told(&api, &other).await["parked"][0]["state"], "dead", "another order's event stays");
}
