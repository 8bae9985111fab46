//! Decoding and encoding events.

use std::fs;
use std::path::PathBuf;

use minishop_contracts::events::v1::{OrderCreatedEvent, OrderSettled, OrderSettledEvent, order_settled};
use minishop_contracts::events::{
    EnvelopeError, EnvelopeFields, EventType, MAX_VALUE_BYTES, decode_envelope, encode_created, encode_settled,
};
use minishop_contracts::json;

use crate::support::{expected, listed};

const GOOD: &str = r#"{"eventId":"evt-1","type":"orders.created.v1","occurredAt":"2026-01-31T12:00:00Z","correlationId":"corr-001","idempotencyKey":"k1","data":{"orderId":"01920000-0000-7000-8000-0000000000aa","customerId":"c1","items":[{"productId":"p1","qty":2,"price":10.5}],"total":21}}"#;

const KEYS: [&str; 6] = ["eventId", "type", "occurredAt", "correlationId", "idempotencyKey", "data"];

fn fixture(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("proto/fixtures").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.trim_end().to_owned()
}

fn fixtures() -> Vec<String> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("proto/fixtures");
    let mut names: Vec<_> = fs::read_dir(folder)
        .expect("the golden events")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "json"))
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    names
}

/// Returns why a value is not a valid envelope, as `CODE key`.
#[track_caller]
fn refusal(value: &[u8]) -> String {
    match decode_envelope(value) {
        Err(error @ EnvelopeError::Envelope { key, .. }) => format!("{} {key}", error.code().as_str()),
        Err(error) => error.code().as_str().to_owned(),
        Ok(_) => "ok".to_owned(),
    }
}

#[test]
fn every_golden_event_is_read() {
    let names = fixtures();
    assert!(names.len() >= 6, "{names:?}");
    for name in names {
        let text = fixture(&name);
        let envelope = decode_envelope(text.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
        if name.starts_with("orders.created") {
            assert_eq!(EventType::parse(&envelope.r#type), EventType::CreatedV1, "{name}");
            let created = envelope.created().unwrap_or_else(|partial| panic!("{name}: {partial:?}"));
            assert_eq!(created.items[0].product_id, "p1", "{name}");
        } else {
            let settled = envelope.settled().unwrap_or_else(|partial| panic!("{name}: {partial:?}"));
            assert_eq!(settled.status().event_type(), Some(envelope.r#type.as_ref()), "{name}");
        }
    }
}

#[test]
fn todays_events_are_written_byte_for_byte() {
    for name in ["orders.created.v1.json", "orders.created.v1.currency.json"] {
        let text = fixture(name);
        let typed: OrderCreatedEvent = serde_json::from_str(&text).expect("the typed message reads it");
        let data = typed.data.as_ref().expect("data");
        let written =
            encode_created(&head(&typed.event_id, typed.occurred_at, &typed.correlation_id, &typed.idempotency_key), data);
        assert_eq!(String::from_utf8_lossy(&written), text, "{name}");
        // The writer's borrowed envelope equals the message of the proto.
        assert_eq!(written, json::to_vec(&typed), "{name}");
    }
    for name in ["orders.processed.v1.json", "orders.failed.v1.json", "orders.cancelled.v1.json"] {
        let text = fixture(name);
        let typed: OrderSettledEvent = serde_json::from_str(&text).expect("the typed message reads it");
        let data = typed.data.as_ref().expect("data");
        let written =
            encode_settled(&head(&typed.event_id, typed.occurred_at, &typed.correlation_id, &typed.idempotency_key), data);
        let written = written.expect("a final status");
        assert_eq!(String::from_utf8_lossy(&written), text, "{name}");
        assert_eq!(written, json::to_vec(&typed), "{name}");
    }
}

fn head<'a>(
    event_id: &'a str,
    occurred_at: Option<minishop_contracts::wkt::Timestamp>,
    correlation_id: &'a str,
    idempotency_key: &'a str,
) -> EnvelopeFields<'a> {
    EnvelopeFields { event_id, occurred_at: occurred_at.expect("a time"), correlation_id, idempotency_key }
}

#[test]
fn an_order_without_a_final_status_has_no_settled_event() {
    let head = head("e", Some(minishop_contracts::wkt::Timestamp::default()), "c", "k");
    for status in [order_settled::Status::Unspecified as i32, 1, 99] {
        assert_eq!(encode_settled(&head, &OrderSettled { status, ..Default::default() }), None);
    }
}

#[test]
fn a_value_must_be_there_and_not_too_large() {
    assert_eq!(refusal(b""), "VALUE_EMPTY");
    let padded = |len: usize| {
        let mut value = GOOD.as_bytes().to_vec();
        value.resize(len, b' ');
        value
    };
    assert_eq!(refusal(&padded(MAX_VALUE_BYTES)), "ok");
    assert_eq!(refusal(&padded(MAX_VALUE_BYTES + 1)), "VALUE_TOO_LARGE");
}

#[test]
fn a_value_must_be_json_all_through() {
    let extra = |json: &str| GOOD.replacen('{', &format!(r#"{{"extra":{json},"#), 1);
    let in_data = |json: &str| GOOD.replace(r#""total""#, &format!(r#""extra":{json},"total""#));
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let cut = &GOOD[..GOOD.len() - 1];
    for value in [
        b"\x00\x9f\x92\x96".as_slice(),
        b"hello",
        cut.as_bytes(),
        format!("{GOOD}x").as_bytes(),
        b"\x1f\x8b\x08\x00",
        b"\x0a\x05evt-1",
        deep.as_bytes(),
        extra(&deep).as_bytes(),
        in_data(&deep).as_bytes(),
        extra(r#""\ud800""#).as_bytes(),
        in_data(r#""\uD800x""#).as_bytes(),
        GOOD.replace("evt-1", r"\ud800").as_bytes(),
        format!("\u{FEFF}{GOOD}").as_bytes(),
    ] {
        assert_eq!(refusal(value), "JSON_INVALID", "{}", String::from_utf8_lossy(value));
    }
    assert_eq!(refusal(extra(r#""\ud83e\udd80""#).as_bytes()), "ok");
    assert_eq!(refusal(extra(&format!("{}1{}", "[".repeat(100), "]".repeat(100))).as_bytes()), "ok");
}

#[test]
fn each_of_the_six_keys_must_be_right() {
    assert_eq!(refusal(b"[]"), "ENVELOPE_INVALID ");
    assert_eq!(refusal(b"{}"), "ENVELOPE_INVALID eventId");
    for key in KEYS {
        let renamed = GOOD.replacen(&format!("\"{key}\""), "\"other\"", 1);
        assert_eq!(refusal(renamed.as_bytes()), format!("ENVELOPE_INVALID {key}"), "missing");
        for value in ["\"\"", "null", "7", "true", "[]"] {
            let wrong = renamed.replacen('{', &format!("{{\"{key}\":{value},"), 1);
            assert_eq!(refusal(wrong.as_bytes()), format!("ENVELOPE_INVALID {key}"), "{value}");
        }
        let twice = GOOD.replacen('{', &format!("{{\"{key}\":\"x\","), 1);
        assert_eq!(refusal(twice.as_bytes()), format!("ENVELOPE_INVALID {key}"), "twice");
    }
}

#[test]
fn the_texts_of_an_envelope_are_short_and_can_be_stored() {
    let key = |text: &str| GOOD.replace("k1", text);
    assert_eq!(refusal(key(&"é".repeat(255)).as_bytes()), "ok");
    assert_eq!(refusal(key(&"k".repeat(256)).as_bytes()), "ENVELOPE_INVALID idempotencyKey");
    assert_eq!(refusal(key(r"a\u0000b").as_bytes()), "ENVELOPE_INVALID idempotencyKey");
    assert_eq!(refusal(GOOD.replace("evt-1", r"a\u0000b").as_bytes()), "ENVELOPE_INVALID eventId");
    assert_eq!(refusal(GOOD.replace("evt-1", &"e".repeat(256)).as_bytes()), "ENVELOPE_INVALID eventId");
    assert_eq!(refusal(GOOD.replace("2026-01-31T12:00:00Z", "yesterday").as_bytes()), "ENVELOPE_INVALID occurredAt");
    // An invalid correlation id is replaced later, not refused.
    for text in ["with blank", r"a\nb", r"a\u0000b", &"c".repeat(200)] {
        assert_eq!(refusal(GOOD.replace("corr-001", text).as_bytes()), "ok", "{text}");
    }
    assert_eq!(refusal(GOOD.replace("corr-001", &"c".repeat(256)).as_bytes()), "ENVELOPE_INVALID correlationId");
}

#[test]
fn unknown_members_and_any_time_are_passed_over() {
    let text = GOOD
        .replacen('{', r#"{"extra":{"a":[1]},"extra":2,"#, 1)
        .replace(r#""total""#, r#""extra":null,"total""#)
        .replace(r#""qty""#, r#""colour":"red","qty""#);
    let envelope = decode_envelope(text.as_bytes()).expect("unknown members are passed over");
    let order = envelope.created().expect("in data too");
    assert_eq!((order.customer_id.as_str(), order.items[0].qty, order.total), ("c1", 2, Some(21.0)));
    for time in ["1970-01-01T00:00:00Z", "2100-01-01T00:00:00Z", "2026-01-31T12:00:00+02:00"] {
        assert_eq!(refusal(GOOD.replace("2026-01-31T12:00:00Z", time).as_bytes()), "ok", "{time}");
    }
}

#[test]
fn a_newer_version_is_an_envelope_whose_data_is_not_read() {
    let text = r#"{"eventId":"evt-2","type":"orders.created.v2","occurredAt":"2026-01-31T12:00:00Z","correlationId":"c","idempotencyKey":"k","data":{"order":{"lines":"many"}}}"#;
    let envelope = decode_envelope(text.as_bytes()).expect("six keys");
    assert_eq!(EventType::parse(&envelope.r#type), EventType::NewerVersion(2));
}

#[test]
fn data_is_checked_field_by_field() {
    let answer = |from: &str, to: &str| {
        assert!(GOOD.contains(from), "{from}");
        let text = GOOD.replace(from, to);
        match decode_envelope(text.as_bytes()).expect("an envelope").created() {
            Ok(_) => Vec::new(),
            Err(partial) => listed(&partial.into_violations()),
        }
    };
    let line = r#"{"productId":"p1","qty":2,"price":10.5}"#;
    let many = vec![line; 101].join(",");
    let total = r#","total":21"#;
    for (from, to, violations) in [
        ("\"qty\":2", "\"qty\":0", "items[0].qty OUT_OF_RANGE"),
        ("\"qty\":2", "\"qty\":1.5", "items[0].qty WRONG_TYPE"),
        (line, "", "items REQUIRED"),
        (line, many.as_str(), "items TOO_MANY"),
        ("\"c1\"", "\"\"", "customerId REQUIRED"),
        ("\"c1\"", "7", "customerId WRONG_TYPE"),
        ("\"c1\"", "\"c1\",\"customerId\":\"c2\"", "customerId DUPLICATE_FIELD"),
        ("01920000-0000-7000-8000-0000000000aa", "7", "orderId INVALID_FORMAT"),
        (total, r#","total":21,"currency":"usd""#, "currency INVALID_FORMAT"),
        (total, "", "total REQUIRED"),
        (total, r#","total":"lots""#, "total WRONG_TYPE"),
        (total, r#","total":-1"#, "total OUT_OF_RANGE"),
    ] {
        assert_eq!(answer(from, to), expected(&[violations]), "{to}");
    }
    assert_eq!(answer(total, r#","total":0.30000000000000004,"currency":null"#), [""; 0]);
}

#[test]
fn errors_name_the_key_and_show_nothing_of_the_value() {
    let error = decode_envelope(GOOD.replace("\"evt-1\"", "7").as_bytes()).expect_err("a number is no id");
    assert_eq!(error.to_string(), "eventId must be a string");
    let error = decode_envelope(b"secret").expect_err("no JSON");
    assert_eq!(error.to_string(), "not JSON: expected value at line 1 column 1");
}

#[test]
fn a_status_that_is_newer_than_the_reader_is_unspecified() {
    let text = fixture("orders.processed.v1.json").replace("\"status\":\"processed\"", "\"status\":\"returned\"");
    let envelope = decode_envelope(text.as_bytes()).expect("six keys");
    let refused = envelope.settled().expect_err("a status is required");
    assert_eq!(refused.message.status(), order_settled::Status::Unspecified);
}
