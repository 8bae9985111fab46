//! Bodies that are not a JSON object.

use crate::harness::B;
use crate::world::World;

pub async fn what_is_no_json_object_is_refused_with_its_place(world: &World) {
    let api = world.api().await;
    let deep = "[".repeat(100_000);
    let nested = format!("{}{}", "{\"a\":".repeat(200), "}".repeat(200));
    let array = format!("[{B}]");
    let twice = format!("{B}{B}");
    let marked = format!("\u{feff}{B}");
    for body in [
        "customerId=c1",
        "{\"a\":1,}",
        "{}{}",
        twice.as_str(),
        marked.as_str(),
        "{'a':1}",
        "{\"customerId\":\"c\n1\"}",
        "{\"customerId\":NaN}",
        "{\"customerId\":01}",
        "{\"customerId\":1e400}",
        "{\"customerId\":\"\\ud800\"}",
        "[]",
        array.as_str(),
        "\"x\"",
        "null",
        "7",
        deep.as_str(),
        nested.as_str(),
    ] {
        let answer = api.post("k", body).await;
        assert_eq!((answer.status, answer.refusal().0.as_str()), (400, "JSON_INVALID"), "{}", &body[..body.len().min(40)]);
        assert!(answer.json()["detail"].as_str().unwrap().contains("ine "), "{answer:?}");
    }
    assert_eq!(api.post("k", b"{\"customerId\":\"\xff\"}").await.refusal().0, "JSON_INVALID");
    let utf_16: Vec<u8> = B.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(api.post("k", utf_16).await.refusal().0, "JSON_INVALID");
    let empty = api.send("POST", "/orders", &[("content-type", "application/json"), ("content-length", "0")], b"").await;
    assert_eq!(empty.refusal().0, "JSON_INVALID");
    let first = api.post("k", B).await;
    assert_eq!((first.status, first.header("idempotent-replayed"), api.orders().await), (201, None, 1));
}
