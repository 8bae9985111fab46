//! Request headers: correlation id, trace context, media type, and headers without a meaning.

use minishop_bus::Headers;

use crate::harness::B;
use crate::world::World;

pub async fn a_correlation_id_outside_the_rule_is_replaced_and_a_good_one_echoed(world: &World) {
    let api = world.api().await;
    let long = "x".repeat(129);
    let json = ("content-type", "application/json");
    for bad in [&[""][..], &["with blank"], &["a;b"], &["{json}"], &["k\u{e9}"], &[long.as_str()], &["a", "b"]] {
        let sent = bad.iter().map(|value| ("x-correlation-id", *value)).chain([json]);
        let answer = api.send("POST", "/orders", &sent.collect::<Vec<_>>(), B.as_bytes()).await;
        let id = answer.header("x-correlation-id").unwrap().to_owned();
        assert!(answer.status == 201 && id.len() == 36 && !bad.contains(&id.as_str()), "{bad:?}");
        let order = api.get(answer.header("location").unwrap()).await.json();
        assert_eq!(order["correlationId"], id.as_str());
        let event = api
            .events()
            .await
            .into_iter()
            .map(|row| row.event)
            .find(|e| String::from_utf8_lossy(e.payload.as_ref().unwrap()).contains(&id));
        assert_eq!(
            Headers::decode(&event.expect("the envelope has the new id").headers).unwrap().get("correlation-id"),
            Some(id.as_str())
        );
    }
    let refused = api.send("GET", "/nope", &[("x-correlation-id", &long[..128])], b"").await;
    assert_eq!(refused.header("x-correlation-id"), Some(&long[..128]));
}

pub async fn a_trace_parent_that_breaks_the_rules_begins_a_new_trace(world: &World) {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let api = world.api().await;
    let zero = GOOD.replace(TRACE, &"0".repeat(32));
    let (future, upper, short) = (GOOD.replacen("00", "ff", 1), GOOD.to_uppercase(), &GOOD[..54]);
    let members = (0..33).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
    let handed_on = async |key: &str, parents: &[&str], state: &str| {
        let parents = parents.iter().map(|parent| ("traceparent", *parent));
        let headers = [("content-type", "application/json"), ("x-idempotency-key", key), ("tracestate", state)];
        let answer = api.send("POST", "/orders", &parents.chain(headers).collect::<Vec<_>>(), B.as_bytes()).await;
        assert_eq!(answer.status, 201);
        let event = api.events().await.into_iter().map(|row| row.event).max_by_key(|event| event.event_id).unwrap();
        let headers = Headers::decode(&event.headers).unwrap();
        (headers.get("traceparent").unwrap().to_owned(), headers.get("tracestate").map(str::to_owned))
    };
    for (n, bad) in [&[zero.as_str()][..], &[&future], &[&upper], &[short], &[GOOD, GOOD]].into_iter().enumerate() {
        let (parent, state) = handed_on(&format!("k{n}"), bad, "a=1").await;
        assert!(!parent.contains(TRACE) && parent.len() == 55 && state.is_none(), "{bad:?}: {parent}");
    }
    let (parent, state) = handed_on("long", &[GOOD], &members).await;
    assert!(parent.contains(TRACE) && state.is_none(), "the trace is kept and the state dropped: {parent}");
    let (parent, state) = handed_on("good", &[GOOD], "a=1").await;
    assert!(parent.contains(TRACE) && parent != GOOD && state.as_deref() == Some("a=1"), "{parent}");
}

pub async fn media_types_but_json_are_refused(world: &World) {
    let api = world.api().await;
    for headers in [
        &[][..],
        &[("content-type", "text/plain")],
        &[("content-type", "application/x-www-form-urlencoded")],
        &[("content-type", "application/xml")],
        &[("content-type", "application/json; charset=latin1")],
        &[("content-type", "application/json"), ("content-type", "application/json")],
        &[("content-type", "application/json"), ("content-encoding", "gzip")],
    ] {
        let answer = api.send("POST", "/orders", headers, B.as_bytes()).await;
        assert_eq!((answer.status, answer.refusal().0.as_str()), (415, "MEDIA_TYPE_UNSUPPORTED"), "{headers:?}");
    }
    let good = [("content-type", "APPLICATION/JSON; charset=\"UTF-8\"")];
    assert_eq!(api.send("POST", "/orders", &good, B.as_bytes()).await.status, 201);
}

pub async fn headers_without_a_meaning_change_nothing(world: &World) {
    let api = world.api().await;
    for header in [
        ("accept", "text/html"),
        ("accept-encoding", "zzz"),
        ("cookie", "session=1"),
        ("x-http-method-override", "DELETE"),
        ("x-client-id", "b"),
        ("x-forwarded-for", "203.0.113.7"),
        ("authorization", "Bearer of-nothing"),
    ] {
        let answer = api.send("POST", "/orders", &[("content-type", "application/json"), header], B.as_bytes()).await;
        assert_eq!((answer.status, answer.header("content-type")), (201, Some("application/json")), "{header:?}");
    }
    let strangers = api.database.count("orders WHERE client_id <> 'anonymous'").await;
    assert_eq!((strangers, api.orders().await), (0, 7));
}
