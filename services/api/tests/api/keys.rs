//! The idempotency key, in both of its headers and over both protocols.

use tonic::metadata::MetadataValue;
use tonic_types::StatusExt as _;

use crate::harness::{Api, B};
use crate::idempotency::order;
use crate::world::World;

const JSON: (&str, &str) = ("content-type", "application/json");

pub async fn an_absent_key_is_made_and_returned_or_required(world: &World) {
    let api = world.api().await;
    let made = api.post("", B).await;
    let key = made.header("x-idempotency-key").unwrap().to_owned();
    assert_eq!(api.post(&key, B).await.body, made.body);
    let strict = world.api_with(|config| config.require_idempotency_key = true).await;
    assert_eq!(strict.post("", B).await.refusal().0, "IDEMPOTENCY_KEY_REQUIRED");
    let over_grpc = strict.client().await.create_order(order(2)).await.unwrap_err();
    assert_eq!(over_grpc.code(), tonic::Code::InvalidArgument);
    assert_eq!(strict.post("given", B).await.status, 201);
}

pub async fn good_keys_are_taken_under_both_names(world: &World) {
    let api = world.api().await;
    let long = "k".repeat(255);
    for key in ["k", &long, "order c1/001;v=2"] {
        let made = api.post(key, B).await;
        assert_eq!((made.status, made.header("x-idempotency-key")), (201, Some(key)));
        let quoted = format!("\"{key}\"");
        let again = api.send("POST", "/orders", &[JSON, ("idempotency-key", &quoted)], B.as_bytes()).await;
        assert_eq!((again.header("idempotent-replayed"), &again.body), (Some("true"), &made.body), "{key}");
    }
}

/// Returns the reason for which gRPC refuses `keys`.
async fn reason(api: &Api, keys: &[(&'static str, &[u8])]) -> String {
    let mut request = tonic::Request::new(order(2));
    for (name, key) in keys {
        request.metadata_mut().append(*name, MetadataValue::try_from(*key).unwrap());
    }
    let status = api.client().await.create_order(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    status.get_error_details().error_info().unwrap().reason.clone()
}

pub async fn keys_that_break_their_rule_are_refused_over_both_protocols(world: &World) {
    let api = world.api().await;
    let long = "k".repeat(256);
    for key in ["", "   ", &long, "a\tb", "k\u{e9}", "a\"b", "\"k1", "a\\b"] {
        let answer = api.send("POST", "/orders", &[JSON, ("x-idempotency-key", key)], B.as_bytes()).await;
        assert_eq!((answer.status, answer.refusal().0.as_str()), (400, "IDEMPOTENCY_KEY_INVALID"), "{key:?}");
        assert_eq!(reason(&api, &[("x-idempotency-key", key.as_bytes())]).await, "IDEMPOTENCY_KEY_INVALID", "{key:?}");
    }
    assert_eq!(api.orders().await, 0);
    api.works().await;
}

pub async fn a_key_given_twice_counts_once_if_it_is_the_same(world: &World) {
    let api = world.api().await;
    for names in [["x-idempotency-key", "idempotency-key"], ["x-idempotency-key"; 2], ["idempotency-key"; 2]] {
        let same = [JSON, (names[0], "same"), (names[1], "same")];
        assert_eq!(api.send("POST", "/orders", &same, B.as_bytes()).await.status, 201, "{names:?}");
        let other = [JSON, (names[0], "one"), (names[1], "other")];
        let answer = api.send("POST", "/orders", &other, B.as_bytes()).await;
        assert_eq!((answer.status, answer.refusal().0.as_str()), (400, "IDEMPOTENCY_KEY_MISMATCH"), "{names:?}");
        assert_eq!(reason(&api, &[(names[0], b"one"), (names[1], b"other")]).await, "IDEMPOTENCY_KEY_MISMATCH");
    }
    assert_eq!(api.orders().await, 1);
}
