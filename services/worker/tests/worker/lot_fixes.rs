//! Records that were refused, and are read again by a worker with a fix.

use std::time::Duration;

use minishop_contracts::events::Envelope;
use minishop_contracts::events::v1::OrderCreated;
use minishop_core::ids::EventId;
use minishop_worker::handlers::HandlerPlace;
use minishop_worker::upcast::{Step, Versions, read_v1};
use serde_json::Value;

use crate::handler::{done, failed, scripted};
use crate::lot::DEAD;
use crate::records::{Sent, created, record};
use crate::shop::Shop;

/// A reader after a fix: it also reads events with `customer` for `customerId`.
pub fn fixed_reader(envelope: &Envelope<'_>) -> Result<OrderCreated, String> {
    let data: Value = serde_json::from_str(envelope.data.get()).unwrap();
    let Some(customer) = data.get("customer") else { return read_v1(envelope) };
    let mut data = data.clone();
    data["customerId"] = customer.clone();
    let data = serde_json::value::to_raw_value(&data).unwrap();
    read_v1(&Envelope { data: &data, ..envelope.clone() })
}

/// Misspells an event so that only `fixed_reader` reads it.
pub fn misspelt(event: Sent) -> Sent {
    let customer = event.text("/data/customerId");
    event.without("/data/customerId").with("/data/customer", customer)
}

/// Does to dead letters what an operator's redrive does.
pub async fn redrive(shop: &Shop) {
    let now = if shop.is_distributed() { "clock_timestamp()" } else { "0" };
    let set = format!("state = 'retrying', attempts = 0, redrives = redrives + 1, next_attempt_at = {now}");
    shop.sql(&format!("UPDATE parked SET {set} WHERE state = 'dead'")).await;
}

pub async fn a_refused_record_that_reads_after_a_fix_passes_the_gate_under_its_own_id(shop: Shop) {
    let (good, settled) = (misspelt(created()), created());
    // Two more records of an order that came well meanwhile: the same event, and another one that claims its id.
    let copy = misspelt(settled.clone());
    let other = misspelt(settled.clone().with("/data/items/0/productId", "p2"));
    shop.step(&[good.record(), copy.record(), other.record(), settled.record()]).await;
    assert_eq!(shop.parked().await.len(), 3);
    redrive(&shop).await;
    let handler = scripted(|_, before| if before == 0 { failed() } else { done() });
    let mut worker = shop.hands_that_read(handler.place(), Versions::new(vec![Step::Same], fixed_reader));
    worker.drain().await;
    let again = shop.hands_that_read(handler.place(), Versions::new(vec![Step::Same], fixed_reader));
    again.stream(&[good.record()]).await;
    assert_eq!(again.metric("worker_events_total{outcome=\"copy\"}"), 1, "its own id has passed the gate");
    shop.age(Duration::from_mins(1)).await;
    worker.drain().await;
    assert_eq!(handler.calls(), [good.order_id(), good.order_id()]);
    assert_eq!(shop.order(good.order_id()).await.unwrap().status, "processed");
    // Another meaning under a settled id is not a copy.
    let left = shop.parked().await;
    assert_eq!((left.len(), left[0].error_code.as_deref()), (1, Some("DUPLICATE_CONFLICT")));
}

pub async fn a_refused_record_that_is_refused_again_is_a_second_dead_letter(shop: Shop) {
    let bad = record(Some(b"no event"));
    shop.step(std::slice::from_ref(&bad)).await;
    redrive(&shop).await;
    let mut worker = shop.hands(HandlerPlace::Stream);
    worker.drain().await;
    redrive(&shop).await;
    worker.drain().await;
    let letters = shop.published(DEAD).await;
    let ids: std::collections::HashSet<EventId> = letters.iter().map(|letter| letter.event.event_id).collect();
    assert_eq!((letters.len(), ids.len()), (3, 3), "each death has a dead letter of its own");
    assert!(letters.iter().all(|letter| letter.event.payload == bad.value));
    let parked = shop.parked().await;
    assert_eq!((parked.len(), &*parked[0].state, parked[0].blocks), (1, "dead", false));
}
