//! Cancelling orders.

use std::collections::{BTreeSet, HashSet};

use futures::future::join_all;
use minishop_bus::Headers;
use minishop_contracts::json;
use minishop_contracts::orders::v1::CancelOrderRequest;
use minishop_core::ids::EventId;
use minishop_store::OutboxRow;
use minishop_testkit::database::Engine;
use tonic::Code;
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::harness::{Answer, Api, B};
use crate::proxy::Proxy;
use crate::world::{World, on};

/// Creates an order and returns its id.
pub async fn made(api: &Api) -> String {
    api.post("", B).await.json()["orderId"].as_str().unwrap().to_owned()
}

pub async fn cancelled(api: &Api, id: &str) -> Answer {
    api.send("POST", &format!("/orders/{id}/cancel"), &[], b"").await
}

async fn announced(api: &Api) -> Vec<OutboxRow> {
    api.events().await.into_iter().filter(|row| row.event.topic == "orders.cancelled").collect()
}

pub async fn a_cancelled_order_is_answered_told_and_announced_once(world: &World) {
    let api = world.api().await;
    let id = made(&api).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{trace}-b7ad6b7169203331-01");
    let headers = [("x-correlation-id", "corr-cancel"), ("traceparent", parent.as_str()), ("tracestate", "a=1")];
    let first = api.send("POST", &format!("/orders/{id}/cancel"), &headers, b"").await;
    assert_eq!((first.status, first.header("x-correlation-id")), (200, Some("corr-cancel")), "{first:?}");
    let order = first.json();
    assert_eq!((&order["orderId"], &order["status"], &order["version"]), (&id.clone().into(), &"cancelled".into(), &2.into()));
    assert_eq!(order, api.get(&format!("/orders/{id}")).await.json());

    let again = cancelled(&api, &id.to_uppercase()).await;
    assert_eq!((again.status, &again.body), (200, &first.body), "the same answer again");
    let grpc = api.client().await.cancel_order(CancelOrderRequest { order_id: id.clone() }).await.unwrap();
    assert_eq!(json::to_vec(grpc.get_ref()), first.body);

    let created = api.events().await.into_iter().find(|row| row.event.topic == "orders.created").unwrap().event;
    let events = announced(&api).await;
    assert_eq!(events.len(), 1, "{events:?}");
    let event = &events[0].event;
    let value: serde_json::Value = serde_json::from_slice(event.payload.as_ref().unwrap()).unwrap();
    let data = serde_json::json!({"orderId": id, "customerId": "c1", "status": "cancelled", "total": 21});
    assert_eq!((&value["type"], &value["data"]), (&"orders.cancelled.v1".into(), &data));
    let announced_at = api.store.timeline.origin(&minishop_core::ids::ClientId::anonymous(), parsed(&id)).await.unwrap().unwrap();
    let derived = EventId::derived(created.event_id, announced_at.order.head.created_at, "orders.cancelled.v1");
    assert_eq!((event.event_id, announced_at.settled_event_id), (derived, Some(derived)));
    assert_eq!((event.order_version, event.shard, &event.record_key), (Some(2), created.shard, &created.record_key));
    let headers = Headers::decode(&event.headers).unwrap();
    for (name, text) in [
        ("ce_sequence", "2"),
        ("ce_source", "/minishop/api"),
        ("ce_subject", id.as_str()),
        ("causation-id", "corr-cancel"),
        ("correlation-id", value["correlationId"].as_str().unwrap()),
        ("tracestate", "a=1"),
    ] {
        assert_eq!(headers.get(name), Some(text), "{name}");
    }
    assert!(headers.get("traceparent").unwrap().contains(trace));
    assert_eq!(api.database.count("timeline WHERE version = 2 AND kind = 'cancelled'").await, 1);
    assert!(api.scrape().contains("minishop_api_cancels_total{outcome=\"cancelled\"} 3"), "{}", api.scrape());
}

fn parsed(id: &str) -> minishop_core::ids::OrderId {
    minishop_core::ids::OrderId::parse(id).unwrap()
}

pub async fn ten_cancels_at_once_make_one_event(world: &World) {
    let api = world.api().await;
    for _ in 0..5 {
        let id = made(&api).await;
        let answers = join_all((0..10).map(|_| cancelled(&api, &id))).await;
        assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
        assert_eq!(answers.into_iter().map(|answer| answer.body).collect::<HashSet<_>>().len(), 1);
    }
    assert_eq!(announced(&api).await.len(), 5);
    assert_eq!(api.database.count("timeline").await, 5);
}

pub async fn an_order_that_is_processed_or_failed_cannot_be_cancelled(world: &World) {
    let api = world.api().await;
    for status in ["processed", "failed"] {
        let id = made(&api).await;
        api.database.sql(&format!("UPDATE orders SET status = '{status}', version = 2 WHERE status = 'created'")).await;
        let answer = cancelled(&api, &id).await;
        assert_eq!((answer.status, answer.refusal().0.as_str()), (409, "ORDER_NOT_CANCELLABLE"));
        let refused = api.client().await.cancel_order(CancelOrderRequest { order_id: id }).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert_eq!(refused.get_error_details().error_info().unwrap().reason, "ORDER_NOT_CANCELLABLE");
    }
    assert_eq!(announced(&api).await, []);
}

pub async fn an_order_that_the_caller_may_not_see_is_absent_to_every_call(world: &World) {
    let api = world.api().await;
    let (foreign, absent) = (made(&api).await, Uuid::from_u128(7).to_string());
    api.database.sql("UPDATE orders SET client_id = 'somebody'").await;
    let wanted = api.get(&format!("/orders/{absent}")).await;
    assert_eq!((wanted.status, wanted.refusal().0.as_str()), (404, "ORDER_NOT_FOUND"));
    for id in [&foreign, &absent, &Uuid::nil().to_string()] {
        for (method, path) in [("POST", "/cancel"), ("GET", "/timeline"), ("GET", "/events"), ("GET", "")] {
            let answer = api.send(method, &format!("/orders/{id}{path}"), &[], b"").await;
            assert_eq!((answer.status, &answer.body), (404, &wanted.body), "{id}{path}");
        }
        let refused = api.client().await.cancel_order(CancelOrderRequest { order_id: id.clone() }).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
    }
    assert_eq!(announced(&api).await, []);
}

pub async fn an_id_that_is_none_is_named_by_every_call(world: &World) {
    let api = world.api().await;
    for id in ["123", "0190163d8694739baea5966c26f8ad91", "..%2f..%2fmetrics", "%00", "%ff", "urn:uuid:0190163d"] {
        for (method, path) in [("POST", "cancel"), ("GET", "timeline"), ("GET", "events")] {
            let answer = api.send(method, &format!("/orders/{id}/{path}"), &[], b"").await;
            assert_eq!(answer.refusal().1, BTreeSet::from(["orderId INVALID_FORMAT".to_owned()]), "{id}/{path}");
        }
    }
    for (id, reason) in [("", "REQUIRED"), ("{0190163d-8694-739b-aea5-966c26f8ad91}", "INVALID_FORMAT")] {
        let refused = api.client().await.cancel_order(CancelOrderRequest { order_id: id.to_owned() }).await.unwrap_err();
        let found = refused.get_error_details().bad_request().unwrap().field_violations[0].clone();
        assert_eq!((found.field.as_str(), found.reason.as_str()), ("order_id", reason));
    }
}

pub async fn the_body_of_a_cancel_is_absent_or_empty(world: &World) {
    let api = world.api().await;
    let id = made(&api).await;
    let path = format!("/orders/{id}/cancel");
    let json = ("content-type", "application/json");
    for (headers, body, status, code, fields) in [
        (&[json][..], "[]", 400, "JSON_INVALID", &[][..]),
        (&[json], "{", 400, "JSON_INVALID", &[]),
        (&[json], r#"{"force":true}"#, 400, "VALIDATION_FAILED", &["force UNKNOWN_FIELD"]),
        (&[json], r#"{"orderId":"x","a":1}"#, 400, "VALIDATION_FAILED", &["orderId UNKNOWN_FIELD", "a UNKNOWN_FIELD"]),
        (&[], "{}", 415, "MEDIA_TYPE_UNSUPPORTED", &[]),
        (&[("content-type", "text/plain")], "{}", 415, "MEDIA_TYPE_UNSUPPORTED", &[]),
    ] {
        let answer = api.send("POST", &path, headers, body.as_bytes()).await;
        let wanted = fields.iter().map(|field| (*field).to_owned()).collect();
        assert_eq!((answer.status, answer.refusal()), (status, (code.to_owned(), wanted)), "{body}");
    }
    let queried = api.send("POST", &format!("{path}?force=true"), &[], b"").await;
    assert_eq!(queried.refusal().1, BTreeSet::from(["force UNKNOWN_FIELD".to_owned()]));
    assert_eq!(api.get(&format!("/orders/{id}")).await.json()["status"], "created", "nothing was changed");
    for (headers, body) in [(&[json][..], " {} "), (&[json], ""), (&[("content-type", "text/plain")], ""), (&[], "")] {
        assert_eq!(api.send("POST", &path, headers, body.as_bytes()).await.status, 200, "{body:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_whose_answer_is_lost_is_tried_again_and_has_one_effect() {
    on(Engine::Postgres, async |world| {
        let database = world.database().await;
        let proxy = Proxy::start(database.server(), "cut-this-cancel", 2).await;
        let api = world.api_on(&database.behind(proxy.addr), |_| {}).await;
        let id = made(&api).await;
        let headers = [("x-correlation-id", "cut-this-cancel")];
        let answer = api.send("POST", &format!("/orders/{id}/cancel"), &headers, b"").await;
        assert_eq!((answer.status, &answer.json()["status"]), (200, &"cancelled".into()), "{answer:?}");
        assert_eq!(proxy.left(), 0, "two statements lost their answers");
        assert_eq!(announced(&api).await.len(), 1);
    })
    .await;
}
