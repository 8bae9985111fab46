//! Records that other producers have written to `orders.created`.

use std::time::Duration;

use minishop_bus::Record;
use minishop_testkit::blocking::eventually;
use minishop_testkit::rest::get;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::checker::settled;
use crate::support::shop::Shop;

/// The demo's original record.
const DEMO: &str = include_str!("../../../../../proto/fixtures/orders.created.json");
const WAIT: Duration = Duration::from_secs(20);

/// Produces values to one partition, in this order and under one key.
fn produce(shop: &Shop, partition: i32, key: &str, values: &[&[u8]]) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", shop.brokers()).set("linger.ms", "0").create().unwrap();
    let topic = shop.topic("orders.created");
    for value in values {
        let headers = OwnedHeaders::new().insert(Header { key: "by", value: Some("hand") });
        let record = BaseRecord::to(&topic).partition(partition).key(key).payload(*value).headers(headers);
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(WAIT).unwrap();
    }
}

/// Returns another order in the demo's format, with its event.
fn demo_order(n: u128, key: &str) -> (Uuid, String) {
    let mut event: Value = serde_json::from_str(DEMO).unwrap();
    let order = Uuid::from_u128(0x2b7e_1c52_6b0a_4e0e_8d5e_0000_0000_0000 + n);
    event["eventId"] = json!(Uuid::from_u128(0x7d9f_4f0e_0d5e_4b0b_9a3c_0000_0000_0000 + n));
    event["data"]["orderId"] = json!(order);
    event["idempotencyKey"] = json!(key);
    (order, event.to_string())
}

fn is_processed_once(shop: &Shop, http: &str, order: &Uuid) {
    eventually(WAIT, "the order is processed", || {
        get(http, &format!("/orders/{order}")).body.contains(r#""status":"processed""#)
    });
    settled(shop);
    let events = orders_of(&shop.records("orders.processed"));
    assert_eq!(events.iter().filter(|of| *of == order).count(), 1, "one event for order {order}");
}

fn orders_of(records: &[Record]) -> Vec<Uuid> {
    let order = |r: &Record| serde_json::from_slice::<Value>(r.value.as_deref().unwrap()).unwrap()["data"]["orderId"].clone();
    records.iter().map(|record| order(record).as_str().unwrap().parse().unwrap()).collect()
}

#[test]
fn an_event_in_the_demos_format_is_adopted_and_processed_once() {
    let shop = Shop::new();
    let (api, _worker) = (shop.api(), shop.worker());
    let order: Uuid = serde_json::from_str::<Value>(DEMO).unwrap()["data"]["orderId"].as_str().unwrap().parse().unwrap();
    // Twice, as by a producer that missed the broker's answer, and once more under another event id.
    let again = DEMO.replace("7d9f4f0e", "7d9f4f0f");
    assert_ne!(DEMO, again);
    produce(&shop, 3, "c1", &[DEMO.trim_end().as_bytes(), DEMO.trim_end().as_bytes(), again.trim_end().as_bytes()]);
    let (next, event) = demo_order(1, "order-c1-002");
    produce(&shop, 3, "c1", &[event.as_bytes()]);
    // The last of the partition first: once it is processed, all before it are settled.
    for order in [next, order] {
        is_processed_once(&shop, api.addr("http"), &order);
    }
    let read: Value = serde_json::from_str(&get(api.addr("http"), &format!("/orders/{order}")).body).unwrap();
    assert_eq!((&read["customerId"], &read["total"], &read["correlationId"]), (&json!("c1"), &json!(21), &json!("corr-001")));
    let adopted: Vec<(Uuid, bool)> = shop.rows("SELECT order_id, adopted FROM orders ORDER BY order_id");
    let mut expected = vec![(order, true), (next, true)];
    expected.sort_unstable();
    assert_eq!(adopted, expected);
    assert_eq!(shop.records("orders.created.dlq"), [], "nothing was wrong with them");
}

#[test]
fn garbage_becomes_a_dead_letter_and_the_partition_goes_on() {
    const GARBAGE: &[u8] = b"\x00\xffnot an event";
    let shop = Shop::new();
    let (api, _worker) = (shop.api(), shop.worker());
    let (before, first) = demo_order(1, "k-1");
    let (after, last) = demo_order(2, "k-2");
    produce(&shop, 5, "c1", &[first.as_bytes(), GARBAGE, last.as_bytes()]);
    for order in [before, after] {
        is_processed_once(&shop, api.addr("http"), &order);
    }
    let letters = shop.records("orders.created.dlq");
    let [letter] = letters.as_slice() else { panic!("not one dead letter: {letters:?}") };
    assert_eq!((letter.key.as_deref(), letter.value.as_deref()), (Some(&b"c1"[..]), Some(GARBAGE)));
    let topic = shop.topic("orders.created");
    for (name, value) in [
        ("by", "hand"),
        ("dlq-topic", topic.as_str()),
        ("dlq-partition", "5"),
        ("dlq-offset", "1"),
        ("dlq-error-class", "refused"),
    ] {
        assert_eq!(letter.headers.get(name), Some(value), "{name}");
    }
    assert!(letter.headers.get("dlq-error-code").is_some() && letter.headers.get("dlq-error-message").is_some(), "{letter:?}");
    let parked: Vec<(String, bool, i32, i64)> = shop.rows("SELECT state, blocks, partition, source_offset FROM parked");
    assert_eq!(parked, [("dead".to_owned(), false, 5, 1)]);
}
