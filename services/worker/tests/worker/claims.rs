//! Copies, and events that claim another one's id, order or key.

use minishop_bus::{Headers, Record};
use minishop_core::ids::{EventId, OrderId};
use minishop_worker::handlers::HandlerPlace;
use sha2::{Digest, Sha256};

use crate::lot_order::{newer, version_2};
use crate::records::{Sent, created, record};
use crate::shop::Shop;

const PROCESSED: &str = "orders.processed";

impl Shop {
    /// Returns the last dead letter's code.
    async fn last_code(&self) -> Option<String> {
        self.parked().await.pop()?.error_code
    }
}

pub async fn a_batch_delivered_again_changes_nothing(shop: Shop) {
    let known = created().accepted(&shop, "a").await;
    let adopted = created();
    let events = [
        known.clone(),
        adopted.clone(),
        adopted.clone().with("/eventId", "a copy of the order"),
        known.clone().with("/data/total", 22),
        known.clone().with("/eventId", "other data").with("/data/items/0/qty", 1).with("/data/total", 10.5),
        known.clone().with("/data/items/0/productId", "p2"),
        adopted.same_customer().with("/type", "orders.created.v7"),
        adopted.same_customer(),
        created().header("ce_sequence", "7"),
    ];
    let batch: Vec<_> = events.iter().map(Sent::record).collect();
    shop.step(&batch).await;
    let before = shop.snapshot().await;
    shop.step(&batch).await;
    assert_eq!(shop.snapshot().await, before);
    for one in &batch {
        shop.step(std::slice::from_ref(one)).await;
    }
    assert_eq!(shop.snapshot().await, before, "nor does each of its records alone");
    assert_eq!(shop.events("copy"), 2 * batch.len() as u64);
}

pub async fn one_record_twice_in_a_batch_has_one_effect(shop: Shop) {
    let event = created();
    let first = event.record();
    shop.step(&[first.clone(), first, event.record()]).await;
    assert_eq!(shop.order(event.order_id()).await.unwrap().version, 2);
    assert_eq!(shop.published(PROCESSED).await.len(), 1);
    assert_eq!((shop.events("processed"), shop.events("copy")), (1, 2));
}

pub async fn another_event_of_a_known_order_changes_nothing(shop: Shop) {
    let event = created().accepted(&shop, "a").await;
    let other = event.clone().with("/eventId", "another event");
    shop.step(&[other.record()]).await;
    assert_eq!(shop.order(event.order_id()).await.unwrap().status, "created", "not the event that announced it");
    shop.step(&[event.record(), other.clone().with("/eventId", "a third").record()]).await;
    assert_eq!(shop.order(event.order_id()).await.unwrap().version, 2);
    assert_eq!((shop.published(PROCESSED).await.len(), shop.parked().await.len()), (1, 0));
    assert_eq!(shop.count("inbox WHERE order_id IS NOT NULL").await, 3, "the inbox names the order");
    assert_eq!((shop.events("processed"), shop.events("duplicate")), (1, 2));
}

pub async fn another_order_under_the_same_key_is_a_copy_or_a_dead_letter(shop: Shop) {
    let first = created().header("ce_client", "a");
    shop.step(&[first.record()]).await;
    let new = || {
        created().with("/idempotencyKey", first.text("/idempotencyKey")).with("/data/customerId", first.text("/data/customerId"))
    };
    let equal = new().header("ce_client", "a");
    let unlike = new().header("ce_client", "a").with("/data/items/0/qty", 1).with("/data/total", 10.5);
    let anothers = new().header("ce_client", "b");
    shop.step(&[equal.record()]).await;
    assert_eq!((shop.events("duplicate"), shop.parked().await.len()), (1, 0));
    shop.step(&[unlike.record()]).await;
    assert_eq!(shop.last_code().await.as_deref(), Some("IDEMPOTENCY_KEY_REUSED"));
    assert_eq!((shop.order(equal.order_id()).await, shop.order(unlike.order_id()).await), (None, None), "neither order exists");
    shop.step(&[anothers.record()]).await;
    assert_eq!(shop.order(anothers.order_id()).await.unwrap().client_id, "b", "a key is its client's");
}

pub async fn both_claims_of_a_key_in_one_batch_are_told_apart(shop: Shop) {
    let first = created();
    let new = || {
        created().with("/idempotencyKey", first.text("/idempotencyKey")).with("/data/customerId", first.text("/data/customerId"))
    };
    let (equal, unlike) = (new(), new().with("/data/items/0/qty", 1).with("/data/total", 10.5));
    shop.step(&[first.record(), equal.record(), unlike.record()]).await;
    assert_eq!(shop.order(first.order_id()).await.unwrap().status, "processed", "the first of them has it");
    assert_eq!((shop.order(equal.order_id()).await, shop.order(unlike.order_id()).await), (None, None));
    assert_eq!((shop.events("processed"), shop.events("duplicate"), shop.events("dead")), (1, 1, 1));
    assert_eq!(shop.last_code().await.as_deref(), Some("IDEMPOTENCY_KEY_REUSED"));
}

pub async fn another_event_under_a_settled_id_is_a_dead_letter(shop: Shop) {
    let event = created();
    shop.step(&[event.record()]).await;
    let conflict = created().with("/eventId", event.text("/eventId"));
    let batch = [conflict.record(), created().record()];
    shop.step(&batch).await;
    assert_eq!(shop.last_code().await.as_deref(), Some("DUPLICATE_CONFLICT"));
    assert_eq!(shop.order(conflict.order_id()).await, None);
    assert_eq!((shop.events("processed"), shop.events("dead")), (2, 1), "its neighbour flows");
    // Another place in the topic is another record.
    shop.step(&[conflict.record()]).await;
    assert_eq!(shop.parked().await.len(), 2);
}

/// Returns the same event as other programs write it.
fn spellings(event: &Sent) -> Vec<(&'static str, Vec<u8>)> {
    let text = event.json.to_string();
    let (id, order) = (event.text("/eventId"), event.text("/data/orderId"));
    let members = event.json.as_object().unwrap();
    let backwards: Vec<_> = members.iter().rev().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    let numbers = text.replace("\"total\":21", "\"total\":21.0").replace("10.5", "1.05e1");
    assert!(["21.0", "1.05e1"].iter().all(|spelling| numbers.contains(spelling)), "{numbers}");
    let spelled = vec![
        ("white space", serde_json::to_string_pretty(&event.json).unwrap()),
        ("another order of members", format!("{{{}}}", backwards.join(","))),
        ("other spellings of its numbers", numbers),
        ("ids in upper case", text.replace(&id, &id.to_uppercase()).replace(&order, &order.to_uppercase())),
        ("members that nobody reads", event.clone().with("/extra", 1).with("/data/extra", "x").json.to_string()),
        ("its time elsewhere", text.replace("12:00:00.123Z", "14:00:00.123+02:00")),
        ("escapes", text.replace("\"p1\"", "\"\\u00701\"")),
        ("the type without a version", text.replace("orders.created.v1", "orders.created")),
    ];
    assert!(spelled.iter().all(|(_, other)| *other != text), "each is another text");
    spelled.into_iter().map(|(what, other)| (what, other.into_bytes())).collect()
}

fn spelled(event: &Sent, value: Vec<u8>) -> Record {
    Record { value: Some(value.into()), ..event.record() }
}

pub async fn the_same_event_by_another_serializer_is_a_copy(shop: Shop) {
    let event = created().accepted(&shop, "a").await;
    shop.step(&[event.record()]).await;
    let before = shop.snapshot().await;
    let spellings = spellings(&event);
    for (n, (what, value)) in spellings.iter().enumerate() {
        shop.step(&[spelled(&event, value.clone())]).await;
        assert_eq!((shop.last_code().await, shop.events("copy")), (None, n as u64 + 1), "{what}");
    }
    assert_eq!(shop.snapshot().await, before);
    // The same holds whichever spelling comes first.
    let (first, second) = (created(), created());
    let of_first = spelled(&first, self::spellings(&first).remove(1).1);
    shop.step(&[of_first, first.record(), spelled(&second, self::spellings(&second).remove(3).1), second.record()]).await;
    assert_eq!((shop.events("processed"), shop.events("dead")), (3, 0));
}

pub async fn any_change_of_an_events_meaning_is_another_event(shop: Shop) {
    let event = created();
    shop.step(&[event.record()]).await;
    let others = [
        event.clone().with("/data/items/0/qty", 1).with("/data/total", 10.5),
        event.clone().with("/data/items/0/productId", "p2"),
        event.clone().with("/data/customerId", "somebody else"),
        event.clone().with("/data/orderId", created().text("/data/orderId")),
        event.clone().with("/data/currency", "EUR"),
        event.clone().with("/idempotencyKey", "another key"),
        event.clone().with("/correlationId", "another-id"),
        event.clone().with("/occurredAt", "2026-01-31T12:00:00.124Z"),
    ];
    for (n, other) in others.iter().enumerate() {
        shop.step(&[other.record()]).await;
        assert_eq!(shop.parked().await.len(), n + 1, "{}", other.json);
        assert_eq!(shop.last_code().await.as_deref(), Some("DUPLICATE_CONFLICT"), "{}", other.json);
    }
}

pub async fn an_event_that_was_settled_under_its_bytes_alone_is_still_known(shop: Shop) {
    let (event, held) = (created(), version_2(created()));
    let bad = created().with("/eventId", event.text("/eventId"));
    let (first, second, bad) = (event.record(), held.record(), bad.record());
    shop.step(&[first, second, bad.clone()]).await;
    let parked = shop.parked().await.len();
    // The digests as earlier builds stored them.
    let quote = if shop.is_distributed() { ("'\\x", "'") } else { ("x'", "'") };
    let hex = |bytes: &[u8]| {
        bytes.chunks(16).map(|half| format!("{:032x}", u128::from_be_bytes(half.try_into().unwrap()))).collect::<Vec<_>>()
    };
    let literal = |bytes: &[u8]| format!("{}{}{}", quote.0, hex(bytes).concat(), quote.1);
    let of_bad = EventId::of_record(&bad.topic, bad.partition, bad.offset, bad.value.as_deref().unwrap());
    let values = [(event.event_id(), event.record().value), (held.event_id(), held.record().value), (of_bad, bad.value.clone())];
    for (id, value) in values {
        let sha = literal(&Sha256::digest(value.unwrap()));
        shop.sql(&format!("UPDATE inbox SET data_sha = {sha} WHERE event_id = {}", shop.id(OrderId(id.0)))).await;
    }
    let naming = Headers::default()
        .with("dlq-topic", &*bad.topic)
        .with("dlq-partition", bad.partition.to_string())
        .with("dlq-offset", bad.offset.to_string());
    let again = Record { headers: naming, offset: bad.offset + 900_000, ..bad.clone() };
    shop.try_step(&[event.record(), held.record(), bad, again]).await.unwrap();
    assert_eq!((shop.parked().await.len(), shop.events("copy")), (parked, 4));
    // A worker that reads more of an event than the one that parked it.
    let newer_worker = shop.hands_that_read(HandlerPlace::Stream, newer());
    newer_worker.stream(&[held.record()]).await;
    assert_eq!((shop.parked().await.len(), newer_worker.metric("worker_events_total{outcome=\"copy\"}")), (parked, 1));
}

pub async fn a_record_whose_own_id_was_taken_beforehand_stops_nobody(shop: Shop) {
    let garbage = record(Some(b"garbage"));
    let own = EventId::of_record(&garbage.topic, garbage.partition, garbage.offset, b"garbage");
    let forged = created().with("/eventId", own.to_string());
    let behind = created();
    shop.step(&[forged.record()]).await;
    shop.step(&[garbage, behind.record()]).await;
    assert_eq!(shop.order(behind.order_id()).await.unwrap().status, "processed");
}

pub async fn a_known_order_with_other_content_or_client_is_a_dead_letter(shop: Shop) {
    let known = created().accepted(&shop, "a").await;
    let new_id = |n: i64| known.clone().with("/eventId", format!("another-{n}"));
    let other_client = Sent { headers: Headers::default(), ..new_id(2) };
    let rows = [
        (new_id(1).with("/data/items/0/qty", 1).with("/data/total", 10.5), "DATA_MISMATCH"),
        (other_client.clone(), "CLIENT_MISMATCH"),
        (other_client.header("ce_client", "b"), "CLIENT_MISMATCH"),
    ];
    for (event, code) in &rows {
        shop.step(&[event.record()]).await;
        assert_eq!(shop.last_code().await.as_deref(), Some(*code));
    }
    let order = shop.order(known.order_id()).await.unwrap();
    assert_eq!((&*order.client_id, &*order.status, order.version), ("a", "created", 1));
    assert_eq!((shop.parked().await.len(), shop.published("orders.created.dlq").await.len()), (3, 3));
    assert_eq!(shop.metric("worker_dead_letters_total{class=\"refused\",code=\"CLIENT_MISMATCH\"}"), 2);
}

pub async fn an_event_that_is_not_the_orders_next_changes_nothing(shop: Shop) {
    for sequence in ["0", "2", "-1", "99999999999999"] {
        let event = created().accepted(&shop, "a").await;
        let mut stale = event.clone();
        stale.headers.0.retain(|(name, _)| name != "ce_sequence");
        let stale = stale.header("ce_sequence", sequence);
        shop.step(&[stale.record()]).await;
        let order = shop.order(event.order_id()).await.unwrap();
        assert_eq!((&*order.status, order.version), ("created", 1), "sequence {sequence}");
    }
    assert_eq!(shop.events("ignored"), 4);
    assert_eq!(shop.count("timeline WHERE kind = 'ignored'").await, 4, "it is on record");
    assert_eq!((shop.published(PROCESSED).await.len(), shop.parked().await.len()), (0, 0));
}

pub async fn an_order_settled_meanwhile_is_left_as_it_is(shop: Shop) {
    for status in ["cancelled", "failed", "processed"] {
        let event = created().accepted(&shop, "a").await;
        let key = event.text("/idempotencyKey");
        shop.sql(&format!("UPDATE orders SET status = '{status}', version = 2 WHERE idempotency_key = '{key}'")).await;
        shop.step(&[event.record()]).await;
        let order = shop.order(event.order_id()).await.unwrap();
        assert_eq!((&*order.status, order.version), (status, 2));
    }
    assert_eq!((shop.events("ignored"), shop.published(PROCESSED).await.len()), (3, 0));
}

pub async fn two_events_of_one_order_in_a_batch_are_settled_one_after_the_other(shop: Shop) {
    let first = created();
    let second = first.clone().with("/eventId", "second").with("/data/items/0/qty", 1).with("/data/total", 10.5);
    let third = first.clone().with("/eventId", "third");
    shop.step(&[first.record(), created().record(), second.record(), created().record(), third.record()]).await;
    assert_eq!((shop.events("processed"), shop.events("dead"), shop.events("duplicate")), (3, 1, 1));
    assert_eq!(shop.last_code().await.as_deref(), Some("DATA_MISMATCH"));
    assert_eq!(shop.order(first.order_id()).await.unwrap().total_minor, 2100);
}

pub async fn events_of_a_key_are_published_in_the_order_of_their_records(shop: Shop) {
    let first = created();
    let mut events = vec![first.clone()];
    for n in 0..400 {
        // Known and unknown orders, with copies that cut the batch.
        let event = first.same_customer();
        events.push(if n % 3 == 0 { event.accepted(&shop, "anonymous").await } else { event });
        if n % 50 == 0 {
            events.push(events[n].clone());
        }
    }
    let records: Vec<_> = events.iter().map(Sent::record).collect();
    shop.step(&records).await;
    let mut expected: Vec<_> = Vec::new();
    for event in &events {
        if !expected.contains(&event.order_id()) {
            expected.push(event.order_id());
        }
    }
    let published: Vec<_> = shop.published(PROCESSED).await.into_iter().filter_map(|row| row.event.order_id).collect();
    assert_eq!(published.len(), 401);
    assert_eq!(published, expected);
}
