//! Dead letters that are produced to the topic again, and records that only claim to be such.

use minishop_bus::{Headers, Record};
use minishop_store::OutboxRow;
use minishop_testkit::lines::Lines;
use minishop_worker::handlers::Handled;

use crate::handler::{Reaction, scripted};
use crate::records::{Sent, created, record};
use crate::refused::refused;
use crate::shop::Shop;

const DEAD: &str = "orders.created.dlq";

/// Counts the warnings since the last call that point to `minishop dlq redrive`. The processor runs in the test's own thread.
fn take_warnings(lines: &Lines) -> usize {
    lines.take().lines().filter(|line| line.contains("WARN") && line.contains("minishop dlq redrive")).count()
}

/// Returns the record that a tool makes of a dead letter.
fn again(letter: &OutboxRow) -> Record {
    let event = &letter.event;
    let key = Some(event.record_key.clone()).filter(|key| !key.is_empty());
    Record { key, value: event.payload.clone(), headers: Headers::decode(&event.headers).unwrap(), ..record(None) }
}

/// Returns headers that name a place.
fn naming(place: &Record) -> Headers {
    Headers::default()
        .with("dlq-topic", &*place.topic)
        .with("dlq-partition", place.partition.to_string())
        .with("dlq-offset", place.offset.to_string())
}

/// Returns events that decode and are refused for what they claim.
async fn claims(shop: &Shop) -> Vec<Record> {
    let known = created().accepted(shop, "a").await;
    let settled = created();
    shop.step(&[settled.record()]).await;
    let used = created().with("/idempotencyKey", settled.text("/idempotencyKey")).with("/data/items/0/qty", 1);
    vec![
        created().with("/eventId", settled.text("/eventId")).record(),
        used.with("/data/total", 10.5).record(),
        known.clone().with("/data/items/0/price", 1).with("/data/total", 2).record(),
        Sent { headers: Headers::default(), ..known }.header("ce_client", "somebody else").record(),
    ]
}

pub async fn a_dead_letter_that_is_produced_again_has_no_effect(shop: Shop) {
    let mut bad: Vec<Record> = refused().into_iter().map(|(record, ..)| record).collect();
    bad.extend(claims(&shop).await);
    for record in &bad {
        shop.step(std::slice::from_ref(record)).await;
    }
    let letters: Vec<Record> = shop.published(DEAD).await.iter().map(again).collect();
    assert_eq!(letters.len(), bad.len());
    let (before, copies) = (shop.snapshot().await, shop.events("copy"));
    let (lines, _listening) = Lines::of_this_thread();
    shop.step(&letters).await;
    assert_eq!(shop.snapshot().await, before);
    assert_eq!((take_warnings(&lines), shop.events("copy") - copies), (letters.len(), letters.len() as u64));
    for letter in &letters {
        shop.step(std::slice::from_ref(letter)).await;
    }
    assert_eq!((shop.snapshot().await == before, take_warnings(&lines)), (true, letters.len()), "nor one by one");
    // A store that was put back meets both in one batch.
    let garbage = Record { offset: 900_000, ..record(Some(b"garbage")) };
    let made_of_it = Record { offset: 900_001, headers: naming(&garbage), ..garbage.clone() };
    let behind = created();
    shop.step(&[garbage, made_of_it, behind.record()]).await;
    assert_eq!(shop.order(behind.order_id()).await.unwrap().status, "processed", "the next one flows");
    assert_eq!((shop.parked().await.len(), shop.published(DEAD).await.len()), (bad.len() + 1, bad.len() + 1));
}

pub async fn a_dead_letter_of_the_lot_that_is_produced_again_has_no_effect(shop: Shop) {
    let handler = scripted(|_, _| Reaction::Say(Handled::Refused { message: "422".to_owned() }));
    let event = created().accepted(&shop, "a").await;
    let mut worker = shop.hands(handler.place());
    worker.stream(&[event.record(), event.same_customer().record()]).await;
    worker.drain().await;
    let letter = again(&shop.published(DEAD).await.pop().unwrap());
    let before = shop.snapshot().await;
    let (lines, _listening) = Lines::of_this_thread();
    worker.stream(&[letter]).await;
    assert_eq!((shop.snapshot().await == before, take_warnings(&lines)), (true, 1));
    worker.stream(&[event.record()]).await;
    assert_eq!(take_warnings(&lines), 0, "a copy that names no place is nothing to speak of");
}

pub async fn a_forged_place_makes_nothing_disappear(shop: Shop) {
    let (garbage, good) = (record(Some(b"garbage")), created());
    shop.step(&[garbage.clone(), good.record()]).await;
    // Refused because its client is false; the genuine event has the same bytes.
    let known = created().accepted(&shop, "a").await;
    let stolen = Sent { headers: Headers::default(), ..known.clone() }.header("ce_client", "b").record();
    shop.step(std::slice::from_ref(&stolen)).await;
    let (lines, _listening) = Lines::of_this_thread();
    let mut right = known.record();
    right.headers.0.extend(naming(&stolen).0);
    let events = [created(), created()];
    let named = |sent: &Sent, place: &Record| Record { headers: naming(place), ..sent.record() };
    shop.step(&[named(&events[0], &garbage), named(&events[1], &record(None)), right]).await;
    for order in [events[0].order_id(), events[1].order_id(), known.order_id()] {
        assert_eq!(shop.order(order).await.unwrap().status, "processed", "no header stops a good event");
    }
    let before = shop.parked().await.len();
    let own = record(Some(b"garbage"));
    let (first, second) = (record(Some(b"twins")), record(Some(b"twins")));
    let odd = |name: &str, value: &[u8]| {
        let mut headers = naming(&garbage);
        headers.0.retain(|(other, _)| other != name);
        Record { headers: headers.with(name, value), ..record(Some(b"garbage")) }
    };
    let bad = [
        Record { headers: naming(&garbage), ..record(Some(b"other garbage")) },
        Record { headers: naming(&record(None)), ..record(Some(b"garbage")) },
        Record { headers: naming(&own), ..own.clone() },
        odd("dlq-partition", b"x"),
        odd("dlq-offset", b"\xff"),
        odd("dlq-topic", b"elsewhere"),
        Record { headers: naming(&second), ..first.clone() },
    ];
    shop.step(&bad).await;
    assert_eq!(shop.parked().await.len(), before + bad.len(), "each is a dead letter");
    assert_eq!(take_warnings(&lines), 0);
    shop.step(&[Record { headers: naming(&first), ..second }]).await;
    assert_eq!((shop.parked().await.len(), take_warnings(&lines)), (before + bad.len(), 1), "this one is what it says");
    // A record that died twice bears the headers of both places.
    let twice = again(&shop.published(DEAD).await.into_iter().rfind(names_two_places).unwrap());
    shop.step(&[twice]).await;
    assert_eq!(shop.parked().await.len(), before + bad.len());
}

fn names_two_places(row: &OutboxRow) -> bool {
    let headers = Headers::decode(&row.event.headers).unwrap();
    headers.0.iter().filter(|(name, _)| name == "dlq-offset").count() == 2
}
