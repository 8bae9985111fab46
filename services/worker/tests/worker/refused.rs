//! Records that are not valid events.

use bytes::Bytes;
use minishop_bus::{Headers, Record};
use minishop_store::OutboxRow;
use serde_json::{Value, json};

use crate::effects::Parked;
use crate::records::{Sent, created, record};
use crate::shop::Shop;

const DEAD: &str = "orders.created.dlq";

/// Returns refused records, each with its code and a word of its message.
pub fn refused() -> Vec<(Record, &'static str, String)> {
    let mut rows = Vec::new();
    let mut row = |record: Record, code: &'static str, word: &str| rows.push((record, code, word.to_owned()));
    row(record(None), "VALUE_EMPTY", "no value");
    row(record(Some(b"")), "VALUE_EMPTY", "no value");
    row(record(Some(&vec![b' '; 1_000_001])), "VALUE_TOO_LARGE", "1000000");

    let good = created().json.to_string();
    let deep = created().with("/extra", Value::Null).json.to_string().replace("null", &"[".repeat(200)) + &"]".repeat(200);
    let surrogate = created().with("/extra", "X").json.to_string().replace("\"X\"", "\"\\ud800\"");
    let bytes: [&[u8]; 8] = [
        &[0xff, 0x00, 0xc3, 0x28, 0x9d],
        b"hello",
        &good.as_bytes()[..good.len() / 2],
        &[good.as_bytes(), b" {}"].concat(),
        &[0x1f, 0x8b, 0x08, 0, 0, 0, 0, 0, 0, 3],
        &[0x0a, 0x05, b'e', b'v', b't', b'-', b'1'],
        deep.as_bytes(),
        surrogate.as_bytes(),
    ];
    for value in bytes {
        row(record(Some(value)), "JSON_INVALID", "not JSON");
    }

    row(record(Some(b"[]")), "ENVELOPE_INVALID", "object");
    row(record(Some(b"{}")), "ENVELOPE_INVALID", "eventId is missing");
    for key in ["eventId", "type", "occurredAt", "correlationId", "idempotencyKey", "data"] {
        let pointer = format!("/{key}");
        row(created().without(&pointer).record(), "ENVELOPE_INVALID", &format!("{key} is missing"));
        for wrong in [json!(""), Value::Null, json!(7)] {
            row(created().with(&pointer, wrong).record(), "ENVELOPE_INVALID", key);
        }
        let twice = format!("{{\"{key}\":\"x\",{}", &created().json.to_string()[1..]);
        row(record(Some(twice.as_bytes())), "ENVELOPE_INVALID", &format!("{key} occurs twice"));
    }
    row(created().with("/data", "text").record(), "ENVELOPE_INVALID", "data must be an object");
    row(created().with("/occurredAt", "yesterday").record(), "ENVELOPE_INVALID", "occurredAt");
    row(created().with("/idempotencyKey", "k".repeat(256)).record(), "ENVELOPE_INVALID", "idempotencyKey");
    row(created().with("/idempotencyKey", "a\0b").record(), "ENVELOPE_INVALID", "idempotencyKey");
    row(created().with("/eventId", "a\0b").record(), "ENVELOPE_INVALID", "eventId");

    let types = [
        "orders.created.v0",
        "orders.created.v01",
        "orders.created.vX",
        "ORDERS.CREATED",
        "payments.created.v1",
        "orders.cancelled.v1",
        "a\0b",
    ];
    for unknown in types {
        row(created().with("/type", unknown).record(), "TYPE_UNKNOWN", "the topic does not carry");
    }

    let rounded = created().json.to_string().replace("\"price\":10.5", "\"price\":10.4999999999999999999999");
    row(record(Some(rounded.as_bytes())), "DATA_INVALID", "items[0].price: TOO_MANY_DECIMALS");
    for (event, fields) in wrong_data() {
        row(event.record(), "DATA_INVALID", fields);
    }
    rows
}

fn wrong_data() -> Vec<(Sent, &'static str)> {
    let line = json!({"productId": "p1", "qty": 1, "price": 1});
    vec![
        (created().with("/data/items/0/qty", 0), "items[0].qty: OUT_OF_RANGE"),
        (created().with("/data/items/0/price", 10.555), "items[0].price: TOO_MANY_DECIMALS"),
        (created().with("/data/items", json!([])), "items: REQUIRED"),
        (created().with("/data/items", vec![line; 101]).with("/data/total", 101), "items: TOO_MANY"),
        (created().with("/data/customerId", ""), "customerId: REQUIRED"),
        (created().with("/data/orderId", "not a UUID"), "orderId: INVALID_FORMAT"),
        (created().with("/data/orderId", "{0190163d-8694-739b-aea5-966c26f8ad91}"), "orderId"),
        (created().with("/data/currency", "usd"), "currency: INVALID_FORMAT"),
        (created().with("/data/total", 22), "total"),
        (created().without("/data/total"), "total"),
        (created().with("/data/items/0/qty", 0).with("/data/customerId", " c1"), "customerId"),
    ]
}

pub async fn a_record_that_is_no_event_is_a_dead_letter_and_the_next_one_flows(shop: Shop) {
    let rows = refused();
    let mut all = Vec::new();
    for (bad, code, word) in &rows {
        // A good event behind it, under the same record key.
        let good = created().keyed(bad.key.as_deref());
        let batch = [bad.clone(), good.record()];
        shop.step(&batch).await;
        all.extend(batch);
        let what = String::from_utf8_lossy(bad.value.as_deref().unwrap_or_default()).chars().take(300).collect::<String>();
        let parked = shop.parked().await.pop().unwrap();
        let message = parked.error_message.clone().unwrap();
        assert_eq!((parked.error_code.as_deref(), parked.source_offset), (Some(*code), bad.offset), "{what}: {message}");
        assert!(message.contains(word.as_str()), "{what}: {message} does not name {word}");
        assert_eq!((&*parked.state, parked.blocks), ("dead", false), "{what}");
        let letter = shop.published(DEAD).await.pop().unwrap();
        assert_dead_letter(&letter, bad, &parked);
        assert_eq!(shop.order(good.order_id()).await.unwrap().status, "processed", "{what}: the next one flows");
    }
    let count = rows.len();
    assert_eq!((shop.parked().await.len(), shop.published(DEAD).await.len()), (count, count), "each is one dead letter");
    let before = shop.snapshot().await;
    shop.step(&all).await;
    assert_eq!(shop.snapshot().await, before, "read again they change nothing");
    assert_eq!((shop.events("dead"), shop.events("copy")), (count as u64, all.len() as u64));
    assert_eq!(shop.metric("worker_dead_letters_total{class=\"refused\",code=\"VALUE_EMPTY\"}"), 2);
}

fn assert_dead_letter(letter: &OutboxRow, bad: &Record, parked: &Parked) {
    let event = &letter.event;
    assert_eq!((event.payload.as_ref(), &event.record_key), (bad.value.as_ref(), &bad.key.clone().unwrap_or_default()));
    assert_eq!((parked.raw_value.as_deref(), parked.raw_key.as_deref()), (bad.value.as_deref(), bad.key.as_deref()));
    let headers = Headers::decode(&event.headers).unwrap();
    let header = |name| headers.get(name).unwrap_or_default().to_owned();
    assert_eq!(header("dlq-error-code"), parked.error_code.clone().unwrap());
    assert_eq!(header("dlq-error-message"), parked.error_message.clone().unwrap());
    let place = (header("dlq-topic"), header("dlq-partition"), header("dlq-offset"));
    assert_eq!(place, ("orders.created".to_owned(), "3".to_owned(), bad.offset.to_string()));
    assert_eq!((header("dlq-error-class"), header("dlq-attempts")), ("refused".to_owned(), "1".to_owned()));
    assert_eq!((header("dlq-first-failed"), header("dlq-last-failed")), twice("2025-10-09T08:53:20.000Z"));
}

fn twice(text: &str) -> (String, String) {
    (text.to_owned(), text.to_owned())
}

pub async fn a_dead_letter_carries_the_records_own_bytes(shop: Shop) {
    let keys = [None, Some(Bytes::new()), Some(Bytes::from_static(&[0xff, 0, 0x80]))];
    let values = [None, Some(Bytes::new()), Some(Bytes::from_static(b"\xff\xfe"))];
    // Repeated, null and not UTF-8.
    let headers = Headers(vec![
        ("a".to_owned(), Some(Bytes::from_static(b"1"))),
        ("a".to_owned(), None),
        ("b".to_owned(), Some(Bytes::from_static(b"\xff"))),
    ]);
    for key in &keys {
        for value in &values {
            let bad = Record { key: key.clone(), value: value.clone(), headers: headers.clone(), ..record(None) };
            shop.step(std::slice::from_ref(&bad)).await;
            let letter = shop.published(DEAD).await.pop().unwrap().event;
            assert_eq!(letter.payload, *value, "a null value stays null, an empty one empty");
            assert_eq!(letter.record_key, key.clone().unwrap_or_default());
            let told = Headers::decode(&letter.headers).unwrap();
            assert_eq!(told.0[..3], headers.0);
            let null_key = told.0.iter().any(|(name, _)| name == "dlq-key-null");
            assert_eq!(null_key, key.is_none(), "the producer is told to send a null key");
            let parked = shop.parked().await.pop().unwrap();
            assert_eq!((parked.raw_key.map(Bytes::from), parked.raw_value.map(Bytes::from)), (key.clone(), value.clone()));
        }
    }
}

pub async fn a_value_too_large_for_the_topic_is_left_out_and_said_to_be(shop: Shop) {
    let bad = record(Some(&vec![b'x'; 1_950_000]));
    shop.step(std::slice::from_ref(&bad)).await;
    let letter = shop.published(DEAD).await.pop().unwrap().event;
    assert_eq!(letter.payload, None);
    assert_eq!(Headers::decode(&letter.headers).unwrap().get("dlq-value-omitted"), Some("1950000"));
    assert_eq!(shop.parked().await[0].raw_value.as_deref(), bad.value.as_deref(), "the store keeps it");
}

pub async fn a_refused_event_does_not_take_the_place_of_the_good_one_under_its_id(shop: Shop) {
    let good = created().accepted(&shop, "a").await;
    let forged = [
        good.clone().with("/data/total", 22),
        good.clone().with("/type", "orders.created.v0"),
        good.clone().with("/data/items/0/price", 1).with("/data/total", 2),
        Sent { headers: Headers::default(), ..good.clone() }.header("ce_client", "somebody else"),
    ];
    for event in &forged {
        shop.step(&[event.record()]).await;
    }
    let codes: Vec<_> = shop.parked().await.into_iter().map(|parked| parked.error_code.unwrap()).collect();
    assert_eq!(codes, ["DATA_INVALID", "TYPE_UNKNOWN", "DATA_MISMATCH", "CLIENT_MISMATCH"]);
    assert_eq!(shop.order(good.order_id()).await.unwrap().status, "created");
    shop.step(&[good.record()]).await;
    assert_eq!(shop.order(good.order_id()).await.unwrap().status, "processed");
}
