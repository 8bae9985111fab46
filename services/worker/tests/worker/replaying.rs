//! Events rebuilt from the store's history.

use minishop_platform::clock::SystemIds;
use minishop_platform::events::rebuild::Rebuilder;
use minishop_store::{Past, PastOrder};

use crate::records::created;
use crate::shop::Shop;

async fn past(shop: &Shop, past: Past) -> Vec<PastOrder> {
    shop.store.history.orders(&past, None, 100).await.unwrap().0
}

pub async fn a_replayed_end_is_the_event_that_was_published(shop: Shop) {
    let processed = created().accepted(&shop, "a").await;
    let open = created().accepted(&shop, "a").await;
    shop.step(&[processed.record()]).await;
    let first = shop.published("orders.processed").await.remove(0).event;
    let history = Rebuilder::new(&shop.ctx().config, "history");
    let orders = past(&shop, Past { order_id: Some(processed.order_id()), ..Past::default() }).await;
    let events = history.events(&orders[0], &SystemIds).unwrap();
    let ids: Vec<_> = events.iter().map(|event| event.event_id).collect();
    assert_eq!(ids, [processed.event_id(), first.event_id]);
    assert_eq!((&events[1].payload, &events[1].record_key), (&first.payload, &first.record_key));
    assert_eq!(events[1].order_version, first.order_version);
    assert!(events.iter().all(|event| event.topic == "history"));
    let orders = past(&shop, Past { customer_id: Some(open.text("/data/customerId")), ..Past::default() }).await;
    assert_eq!(history.events(&orders[0], &SystemIds).unwrap().len(), 1, "an open order has no end yet");
}

pub async fn history_is_chosen_by_order_customer_and_time(shop: Shop) {
    let one = created().accepted(&shop, "a").await;
    created().accepted(&shop, "b").await;
    let count = async |chosen: Past| past(&shop, chosen).await.len();
    let at = crate::shop::now();
    assert_eq!(count(Past::default()).await, 2);
    assert_eq!(count(Past { order_id: Some(one.order_id()), ..Past::default() }).await, 1);
    assert_eq!(count(Past { customer_id: Some(one.text("/data/customerId")), ..Past::default() }).await, 1);
    assert_eq!(count(Past { from: Some(at), ..Past::default() }).await, 2);
    assert_eq!(count(Past { until: Some(at), ..Past::default() }).await, 0, "the end is not part of the range");
    let (page, last) = shop.store.history.orders(&Past::default(), None, 1).await.unwrap();
    assert_eq!(page.iter().map(|past| past.origin.order.head.order_id).collect::<Vec<_>>(), Vec::from_iter(last));
    let (rest, last) = shop.store.history.orders(&Past::default(), last, 9).await.unwrap();
    assert_eq!((rest.len(), rest.last().map(|past| past.origin.order.head.order_id)), (1, last));
    assert_eq!(shop.store.history.orders(&Past::default(), last, 9).await.unwrap(), (Vec::new(), None));
    let other = Past { customer_id: Some("nobody".to_owned()), ..Past::default() };
    let (none, last) = shop.store.history.orders(&other, None, 9).await.unwrap();
    assert!(none.is_empty() && last.is_some(), "nothing is chosen, and it goes on behind what was looked at");
}
