//! Events for a newer worker, and what waits behind them.

use std::time::Duration;

use minishop_testkit::wait::{PATIENCE, becomes, eventually};
use serde_json::json;

use crate::consuming::worker;
use crate::effects::Parked;
use crate::log::log;
use crate::records::created;
use crate::shop::Shop;

pub async fn an_event_of_a_newer_version_is_held_and_its_key_waits(shop: Shop) {
    for version in ["orders.created.v2", "orders.created.v99"] {
        let before = shop.parked().await.len();
        // Data that version 1 cannot read.
        let held = created().with("/type", version).with("/data/items", json!({"p1": 2})).without("/data/total");
        let behind = held.same_customer().accepted(&shop, "a").await;
        let elsewhere = created();
        shop.step(&[held.record(), behind.record(), elsewhere.record()]).await;
        let later = held.same_customer();
        shop.step(&[later.record()]).await;
        let parked = shop.parked().await.split_off(before);
        let told: Vec<_> = parked.iter().map(|p| (p.r#type.as_deref(), p.needs_type.as_deref())).collect();
        let v1 = Some("orders.created.v1");
        assert_eq!(told, [(Some(version), Some(version)), (v1, None), (v1, None)]);
        let waits = |p: &Parked| (&*p.state, p.blocks, p.attempts, p.error_code.as_deref()) == ("waiting", true, 0, None);
        assert!(parked.iter().all(waits), "no attempt and no error: {parked:#?}");
        assert_eq!(parked[0].raw_value.as_deref(), held.record().value.as_deref(), "with its own bytes");
        for waiting in [&behind, &later] {
            assert_eq!(shop.order(waiting.order_id()).await.unwrap().status, "created");
        }
        assert_eq!(shop.order(elsewhere.order_id()).await.unwrap().status, "processed", "other keys flow");
    }
    assert_eq!(shop.published("orders.created.dlq").await, [], "no dead letter");
    assert_eq!((shop.events("held"), shop.events("parked"), shop.events("processed")), (2, 4, 2));
    assert_eq!(shop.count("timeline WHERE kind = 'parked'").await, 4);
}

pub async fn a_held_event_without_a_record_key_holds_up_its_customer(shop: Shop) {
    let held = created().with("/type", "orders.created.v2").keyed(None);
    let nameless = created().with("/type", "orders.created.v2").with("/data", json!({"customer": 7})).keyed(None);
    let behind = held.same_customer();
    shop.step(&[held.record(), nameless.record(), behind.record(), created().keyed(None).record()]).await;
    let keys: Vec<_> = shop.parked().await.into_iter().map(|parked| (parked.record_key, parked.raw_key)).collect();
    let customer = held.text("/data/customerId").into_bytes();
    assert_eq!(keys, [(customer.clone(), None), (Vec::new(), None), (customer, None)]);
    assert_eq!(shop.events("processed"), 1, "another customer's event flows");
}

pub async fn events_behind_a_blocking_one_wait_in_their_order(shop: Shop) {
    let held = created().with("/type", "orders.created.v2");
    shop.step(&[held.record()]).await;
    let mut expected = vec![held.record().value];
    for size in [1, 3, 70, 1] {
        let batch: Vec<_> = (0..size).map(|_| held.same_customer().record()).collect();
        shop.step(&batch).await;
        expected.extend(batch.into_iter().map(|record| record.value));
    }
    let parked: Vec<_> = shop.parked().await.into_iter().map(|parked| parked.raw_value.map(Into::into)).collect();
    assert_eq!(parked, expected);
    // A duplicate of a known order does not wait.
    let duplicate = held.same_customer().accepted(&shop, "a").await.with("/eventId", "another");
    shop.step(&[duplicate.record()]).await;
    assert_eq!((shop.events("duplicate"), shop.parked().await.len()), (1, expected.len()));
}

pub async fn the_order_of_a_held_event_tells_of_it(shop: Shop) {
    let event = created().accepted(&shop, "a").await;
    let held = event.clone().with("/type", "orders.created.v2").with("/data/items", json!({"p1": 2}));
    let another = held.clone().with("/eventId", "of somebody who names this order");
    let unknown = created().with("/type", "orders.created.v2");
    let nameless = held.same_customer().with("/type", "orders.created.v2").with("/data/orderId", 7);
    let batch = [held, another, unknown, nameless].map(|event| event.record());
    shop.step(&batch).await;
    shop.step(&batch).await;
    assert_eq!(shop.timeline(event.order_id()).await, [("held".to_owned(), json!({"needsType": "orders.created.v2"}))]);
    assert_eq!((shop.count("timeline").await, shop.parked().await.len()), (1, 4));
}

pub async fn an_event_that_is_held_for_long_raises_the_alarm(shop: Shop) {
    let log = log(&shop).await;
    log.send_events(&[created().with("/type", "orders.created.v2")]).await;
    let worker = worker(&shop.store, &log, "worker");
    becomes("held events", async || shop.parked().await.len(), 1).await;
    let told = async || (worker.metric("lot_oldest_held_age_seconds"), worker.note("held_events"));
    shop.age(Duration::from_mins(14)).await;
    let held_for = async |minutes: u64| {
        let (held, note) = told().await;
        if held >= minutes * 60 { Ok(note) } else { Err(held) }
    };
    eventually(PATIENCE, "it is held for 14 min", async || held_for(14).await).await;
    assert_eq!(told().await.1, None);
    shop.age(Duration::from_mins(2)).await;
    let alarm = async || held_for(16).await.is_ok_and(|note| note.is_some_and(|note| note.contains("16 min")));
    eventually(PATIENCE, "the alarm says 16 min", alarm).await;
    shop.sql("DELETE FROM parked").await;
    becomes("seconds and note", told, (0, None)).await;
    worker.drain().await;
}
