//! Odd but valid events.

use bytes::Bytes;
use minishop_bus::Headers;
use minishop_core::ids::{ClientId, EventId};
use serde_json::{Value, json};

use crate::records::{Sent, created};
use crate::shop::Shop;

const PROCESSED: &str = "orders.processed";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn odd_but_good() -> Vec<(&'static str, Sent)> {
    let mut strange_headers = created();
    let strange = [("x", Some(&b"1"[..])), ("x", Some(b"2")), ("y", None), ("ce_client", Some(b"\xff")), ("ce_sequence", None)];
    strange_headers.headers = Headers(strange.map(|(n, v)| (n.to_owned(), v.map(Bytes::from_static))).to_vec());
    vec![
        ("unknown members", created().with("/extra", json!({"a": [1]})).with("/data/extra", 1).with("/data/items/0/extra", "x")),
        ("unknown, repeated, null and non-UTF-8 headers", strange_headers),
        ("a time before 1970", created().with("/occurredAt", "1969-12-31T23:59:59Z")),
        ("a time in 1970", created().with("/occurredAt", "1970-01-01T00:00:00Z")),
        ("the first time there is", created().with("/occurredAt", "0001-01-01T00:00:00Z")),
        ("a time in 2100", created().with("/occurredAt", "2100-01-01T00:00:00.000000001Z")),
        ("the last time there is", created().with("/occurredAt", "9999-12-31T23:59:59.999999999Z")),
        ("a time elsewhere", created().with("/occurredAt", "2026-01-31T12:00:00+02:00")),
        ("the demo's type", created().with("/type", "orders.created")),
        ("an event id that is no UUID", created().with("/eventId", "evt-1")),
        ("an idempotency key of any text", created().with("/idempotencyKey", "\u{e9} \"\\ \u{1f980}".repeat(20))),
        ("no record key", created().keyed(None)),
        ("an empty record key", created().keyed(Some(b""))),
        ("a record key that is not the customer", created().keyed(Some(b"\xff\x00"))),
        ("a record key of 600 bytes", created().keyed(Some(&[b'k'; 600]))),
        ("no valid traceparent", created().header("traceparent", "00-zz-1-01").header("tracestate", "a=1")),
        ("a header type unlike the envelope's", created().header("ce_type", "orders.cancelled.v1")),
        ("a sequence that is no number", created().header("ce_sequence", "abc")),
        ("a client name of 256 characters", created().header("ce_client", "c".repeat(256))),
        ("a client name with U+0000", created().header("ce_client", "a\0b")),
        ("a client name that is empty", created().header("ce_client", "")),
        ("a text of the longest length", created().with("/data/customerId", "\u{1f980}".repeat(128))),
        ("a currency", created().with("/data/currency", "JPY").with("/data/items/0/price", 10).with("/data/total", 20)),
        ("a free order", created().with("/data/items/0/price", 0).with("/data/total", 0)),
    ]
}

pub async fn an_odd_but_readable_event_is_processed(shop: Shop) {
    let rows = odd_but_good();
    for (what, event) in &rows {
        shop.step(&[event.record()]).await;
        let order = shop.order(event.order_id()).await.unwrap_or_else(|| panic!("{what}: adopted"));
        assert_eq!((&*order.status, order.version, order.adopted), ("processed", 2, true), "{what}");
        assert_eq!(order.client_id, "anonymous", "{what}: no client that can be taken");
        let published = shop.published(PROCESSED).await.pop().unwrap().event;
        assert_eq!((published.order_id, published.order_version), (Some(event.order_id()), Some(2)), "{what}");
    }
    assert_eq!((shop.parked().await.len(), shop.published(PROCESSED).await.len()), (0, rows.len()));
    assert_eq!(shop.events("processed"), rows.len() as u64);
    assert_eq!(shop.metric("worker_created_to_processed_duration_seconds_count"), rows.len() as u64);
}

pub async fn an_unknown_order_is_adopted_for_the_client_in_the_headers(shop: Shop) {
    let (ours, nobodys) = (created().header("ce_client", "a"), created());
    shop.step(&[ours.record(), nobodys.record()]).await;
    let get =
        async |client: &str, event: &Sent| shop.store.reads.order(&ClientId(client.to_owned()), event.order_id()).await.unwrap();
    assert!(get("a", &ours).await.is_some() && get("anonymous", &ours).await.is_none(), "readable by its client alone");
    assert!(get("anonymous", &nobodys).await.is_some() && get("a", &nobodys).await.is_none());
    let items = get("a", &ours).await.unwrap().items.replace(' ', "");
    assert_eq!(serde_json::from_str::<Value>(&items).unwrap(), json!([{"productId": "p1", "qty": 2, "priceMinor": 1050}]));
    assert_eq!(shop.count("timeline WHERE kind = 'adopted'").await, 2);
    assert_eq!(shop.published("orders.created").await, [], "its event exists already");
}

pub async fn the_processed_event_follows_from_its_cause(shop: Shop) {
    let cause = created().accepted(&shop, "a").await.header("correlation-id", "of the header");
    shop.step(&[cause.record()]).await;
    let row = shop.published(PROCESSED).await.pop().unwrap().event;
    let envelope: Value = serde_json::from_slice(row.payload.as_ref().unwrap()).unwrap();
    let id = EventId::derived(cause.event_id(), "2026-01-31T12:00:00.123Z".parse().unwrap(), "orders.processed.v1");
    assert_eq!(row.event_id, id, "a second try makes the same id");
    let expected = json!({
        "eventId": id.to_string(),
        "type": "orders.processed.v1",
        "occurredAt": "2025-10-09T08:53:20Z",
        "correlationId": cause.text("/correlationId"),
        "idempotencyKey": cause.text("/idempotencyKey"),
        "data": {
            "orderId": cause.text("/data/orderId"),
            "customerId": cause.text("/data/customerId"),
            "status": "processed",
            "total": 21,
        },
    });
    assert_eq!(envelope, expected);
    assert_eq!(row.record_key, cause.text("/data/customerId"));
    let headers = Headers::decode(&row.headers).unwrap();
    let expected = [
        ("ce_specversion", "1.0"),
        ("ce_source", "/minishop/worker"),
        ("ce_type", "orders.processed.v1"),
        ("ce_time", "2025-10-09T08:53:20Z"),
        ("ce_id", &id.to_string()),
        ("ce_subject", &cause.text("/data/orderId")),
        ("ce_sequence", "2"),
        ("ce_client", "a"),
        ("correlation-id", &cause.text("/correlationId")),
        ("causation-id", &cause.text("/eventId")),
    ];
    for (name, value) in expected {
        assert_eq!(headers.get(name), Some(value), "{name}");
    }
}

pub async fn a_correlation_id_that_breaks_the_rule_gives_way_to_the_events_id(shop: Shop) {
    for bad in ["with blank".to_owned(), "x".repeat(200), "line\nbreak".to_owned(), "a\0b".to_owned()] {
        let event = created().with("/correlationId", bad.as_str());
        shop.step(&[event.record()]).await;
        let id = event.event_id().to_string();
        assert_eq!(shop.order(event.order_id()).await.unwrap().correlation_id, id, "{bad:?}");
        let row = shop.published(PROCESSED).await.pop().unwrap().event;
        let envelope: Value = serde_json::from_slice(row.payload.as_ref().unwrap()).unwrap();
        assert_eq!(envelope["correlationId"], id);
        assert_eq!(Headers::decode(&row.headers).unwrap().get("correlation-id"), Some(&*id));
    }
}

pub async fn the_exact_sum_is_published_and_not_the_producers(shop: Shop) {
    let price = json!({"productId": "p1", "qty": 3, "price": 0.1});
    // The demo's 3 × 0.1: float noise.
    let event = created().with("/data/items", json!([price])).with("/data/total", 0.300_000_000_000_000_04);
    shop.step(&[event.record()]).await;
    let row = shop.published(PROCESSED).await.pop().unwrap().event;
    assert!(String::from_utf8_lossy(row.payload.as_ref().unwrap()).contains("\"total\":0.3}"));
    assert_eq!(shop.order(event.order_id()).await.unwrap().total_minor, 30);
}

pub async fn the_trace_goes_on_in_the_processed_event(shop: Shop) {
    let traced = created().header("traceparent", PARENT).header("tracestate", "a=1,b=2");
    let broken = created().header("traceparent", "00-0").header("tracestate", "a=1");
    shop.step(&[traced.record(), broken.record()]).await;
    let headers: Vec<_> =
        shop.published(PROCESSED).await.into_iter().map(|row| Headers::decode(&row.event.headers).unwrap()).collect();
    let parent = |n: usize| headers[n].get("traceparent").unwrap().to_owned();
    assert!(parent(0).starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "the same trace: {}", parent(0));
    assert_ne!(parent(0), PARENT, "in a span of its own");
    assert_eq!(headers[0].get("tracestate"), Some("a=1,b=2"));
    assert!(parent(1).len() == 55 && !parent(1).contains("0af76519"), "a trace of its own: {}", parent(1));
    assert_eq!(headers[1].get("tracestate"), None, "a state without its trace means nothing");
}

pub async fn a_record_key_of_any_length_keeps_its_order(shop: Shop) {
    for length in [1, 1024, 1025, 2705, 100_000] {
        let key = vec![b'k'; length];
        let held = created().with("/type", "orders.created.v2").keyed(Some(&key));
        let behind = held.same_customer();
        shop.step(&[held.record(), behind.record()]).await;
        let parked = shop.parked().await;
        let rows = &parked[parked.len() - 2..];
        assert_eq!(rows[0].record_key, rows[1].record_key);
        assert_eq!((rows[0].raw_key.as_deref(), rows[1].raw_key.as_deref()), (Some(&*key), Some(&*key)), "{length} bytes");
        assert!(rows[0].record_key.len() <= 1024, "PostgreSQL can index it");
        assert_eq!(rows[0].record_key == key, length <= 1024, "a short key stands there as it is");
    }
}
