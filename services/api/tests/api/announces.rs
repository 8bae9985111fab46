//! Events that are announced again.

use std::collections::BTreeSet;

use minishop_contracts::ops::v1::AnnounceOrdersRequest;
use minishop_core::parking::State;
use minishop_platform::clock::{SystemClock, SystemIds};
use minishop_platform::events::rebuild::Rebuilder;
use minishop_store::{OutboxRow, ParkedEvent, Past};
use minishop_testkit::ctx::config;
use serde_json::json;
use tonic::Code;

use crate::harness::Api;
use crate::ops::{parked, skipped, violations};
use crate::world::World;

/// Creates an order and deletes its event from the outbox, as if the log had lost it; returns both.
async fn lost(api: &Api, key: &str) -> (String, OutboxRow) {
    let made = api.post(key, crate::harness::B).await.json();
    let id = made["orderId"].as_str().unwrap().to_owned();
    let row = api.events().await.into_iter().find(|row| row.event.order_id.unwrap().to_string() == id).unwrap();
    let event = api.database.id(row.event.event_id);
    api.database.sql(&format!("DELETE FROM outbox_event WHERE event_id = {event}")).await;
    (id, row)
}

pub async fn a_lost_order_is_announced_again_and_one_on_its_way_is_not(world: &World) {
    const PATH: &str = "/ops/orders/announce";
    let api = world.api().await;
    let (gone, first) = lost(&api, "k1").await;
    let (in_lot, row) = lost(&api, "k2").await;
    api.park(vec![ParkedEvent { order_id: row.event.order_id, event_id: row.event.event_id, ..parked(1, State::Retrying) }])
        .await;
    let waits = api.post("k3", crate::harness::B).await.json()["orderId"].as_str().unwrap().to_owned();
    let (cancelled, _) = lost(&api, "k4").await;
    assert_eq!(api.command(&format!("/orders/{cancelled}/cancel"), &json!({})).await.status, 200);
    let absent = "0190163d-8694-739b-aea5-966c26f8ad91";
    let ids = [&gone, &in_lot, &waits, &cancelled, absent, "x", &gone].map(str::to_owned);
    let before = api.events().await.len();
    for dry_run in [true, false] {
        let body = json!({"orderIds": ids, "dryRun": dry_run, "reason": "its event is lost", "operator": "ana"});
        let answer = api.command(PATH, &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer = answer.json();
        assert_eq!((&answer["orderIds"], &answer["nextPageToken"]), (&json!([gone]), &json!("")), "{answer}");
        let wanted =
            [(&*in_lot, "IN_LOT"), (&waits, "IN_OUTBOX"), (&cancelled, "NOT_CREATED"), (absent, "NOT_FOUND"), ("x", "NOT_FOUND")];
        let wanted: BTreeSet<_> = wanted.map(|(id, why)| (id.to_owned(), why.to_owned())).into();
        assert_eq!(skipped(&answer).into_iter().collect::<BTreeSet<_>>(), wanted);
        assert_eq!(api.events().await.len(), before + usize::from(!dry_run));
    }
    let again = api.events().await.into_iter().find(|row| row.event.event_id == first.event.event_id).unwrap();
    assert_eq!(again.event, first.event, "the same event under the same id");
    let mut operators = api.operators().await;
    let over_grpc = AnnounceOrdersRequest { order_ids: vec![gone.clone()], ..Default::default() };
    let answer = operators.announce_orders(over_grpc).await.unwrap().into_inner();
    assert_eq!((answer.order_ids.len(), answer.skipped[0].reason.as_str()), (0, "IN_OUTBOX"), "it waits to be published");
    let audit = api.get("/ops/audit").await.json();
    let told: Vec<_> = audit["entries"].as_array().unwrap().iter().map(|entry| (&entry["action"], &entry["reason"])).collect();
    assert_eq!(told, [(&json!("announce"), &json!("its event is lost"))], "what changed nothing is not audited");
}

pub async fn lost_orders_are_found_by_their_age(world: &World) {
    const PATH: &str = "/ops/orders/announce";
    let api = world.api().await;
    let (old, row) = lost(&api, "k1").await;
    let (_, _young) = lost(&api, "k2").await;
    let at = row.event.order_id.unwrap();
    let hours_ago = api.database.time(minishop_core::clock::Clock::now(&SystemClock).timestamp_millis() - 7_200_000);
    api.database.sql(&format!("UPDATE orders SET created_at = {hours_ago} WHERE order_id = {}", api.database.id(at))).await;
    let answer = api.command(PATH, &json!({"olderThanSeconds": 3600, "dryRun": true})).await.json();
    assert_eq!((&answer["orderIds"], &answer["skipped"], &answer["nextPageToken"]), (&json!([old]), &json!([]), &json!("")));
    let answer = api.command(PATH, &json!({"olderThanSeconds": 3600})).await.json();
    assert_eq!(answer["orderIds"], json!([old]));
    let answer = api.command(PATH, &json!({"olderThanSeconds": 3600})).await.json();
    assert_eq!((&answer["orderIds"], &answer["skipped"]), (&json!([]), &json!([])), "it is on its way");
    for (body, wrong) in [
        (json!({}), "orderIds REQUIRED"),
        (json!({"orderIds": [old], "olderThanSeconds": 60}), "olderThanSeconds CONFLICT"),
        (json!({"olderThanSeconds": 59}), "olderThanSeconds OUT_OF_RANGE"),
        (json!({"orderIds": [old], "pageToken": "x"}), "pageToken CONFLICT"),
    ] {
        let answer = api.command(PATH, &body).await;
        assert_eq!((answer.status, answer.refusal().1), (400, violations(&[wrong])), "{body}");
    }
    let mut operators = api.operators().await;
    let refused = operators.announce_orders(AnnounceOrdersRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

pub async fn a_replayed_event_has_the_bytes_of_the_first(world: &World) {
    let api = world.api().await;
    api.works().await;
    api.post("", crate::harness::B.replace("\"items\"", "\"currency\":\"KWD\",\"items\"")).await;
    let mut first: Vec<_> = api.events().await.into_iter().map(|row| row.event).collect();
    first.sort_by_key(|event| event.order_id);
    let history = Rebuilder::new(&config(world.dir.path()), "orders.created");
    let orders = api.store.history.orders(&Past::default(), None, 10).await.unwrap().0;
    let again: Vec<_> = orders.iter().flat_map(|order| history.events(order, &SystemIds).unwrap()).collect();
    assert_eq!(again, first, "id, key, envelope and headers");
}
