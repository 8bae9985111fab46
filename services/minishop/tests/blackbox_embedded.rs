//! The real binary on embedded parts: the demo's request, the drain, and kill -9 under load.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking; clippy knows only the functions marked as tests")]

#[path = "blackbox/server.rs"]
mod server;

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use minishop_platform::bus::consume::{Start, Tail};
use serde_json::Value;
use server::{Server, get, post};

const ORDER: &str = r#"{"customerId":"c1","items":[{"productId":"p1","qty":2,"price":10.5}]}"#;

/// Polls until `look` finds something; panics with `what` at the deadline.
fn eventually<T>(within: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        std::thread::yield_now();
    }
}

/// Reads all values of a topic from its beginning.
fn topic(server: &Server, name: &str) -> Vec<Value> {
    let tail = Tail::open(server.addr("kafka"), &[name.to_owned()], Start::Beginning).unwrap();
    let records = tail.rest(Duration::from_secs(20)).unwrap();
    records.iter().map(|r| serde_json::from_slice(r.value.as_deref().unwrap()).unwrap()).collect()
}

#[test]
fn the_demos_request_is_answered_published_and_processed() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::up(dir.path());
    let headers = [("x-correlation-id", "corr-001"), ("x-idempotency-key", "order-c1-001")];
    let first = post(server.addr("http"), "/orders", &headers, ORDER);
    let id = serde_json::from_str::<Value>(&first.body).unwrap()["orderId"].as_str().unwrap().to_owned();
    assert_eq!(first.status, 201);
    assert_eq!(first.body, format!(r#"{{"orderId":"{id}","status":"created","total":21}}"#));
    assert_eq!(first.header("x-correlation-id"), Some("corr-001"));
    assert_eq!(first.header("x-idempotency-key"), Some("order-c1-001"));
    assert_eq!(first.header("location"), Some(format!("/orders/{id}").as_str()));
    let again = post(server.addr("http"), "/orders", &headers, ORDER);
    assert_eq!((again.status, &again.body, again.header("idempotent-replayed")), (201, &first.body, Some("true")));
    let other = post(server.addr("http"), "/orders", &headers, &ORDER.replace("10.5", "10.6"));
    assert_eq!(other.status, 422, "{}", other.body);
    // The first member of a new group may take a moment to get its partitions.
    eventually(Duration::from_secs(10), "the order is processed", || {
        get(server.addr("http"), &format!("/orders/{id}")).body.contains(r#""status":"processed""#).then_some(())
    });
    let created = topic(&server, "orders.created");
    assert_eq!(created.len(), 1, "one event for three requests");
    let keys: Vec<&String> = created[0].as_object().unwrap().keys().collect();
    assert_eq!(keys.into_iter().collect::<HashSet<_>>().len(), 6);
    for key in ["eventId", "type", "occurredAt", "correlationId", "idempotencyKey", "data"] {
        assert!(created[0].get(key).is_some(), "{key}");
    }
    assert_eq!(created[0]["type"], "orders.created.v1");
    assert_eq!(created[0]["correlationId"], "corr-001");
    let processed = topic(&server, "orders.processed");
    assert_eq!((processed.len(), &processed[0]["data"]["orderId"]), (1, &created[0]["data"]["orderId"]));
    assert_eq!(server.terminate(), Some(0), "a drain ends with 0");
}

#[test]
fn a_second_process_is_kept_out_of_the_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::up(dir.path());
    let second = Server::refused(dir.path());
    assert_eq!(second.status.code(), Some(2));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains("DATA_DIR_LOCKED") && said.contains(&server.pid().to_string()), "{said}");
}

#[test]
fn kill_9_under_load_loses_and_doubles_nothing() {
    const KILLS: usize = 10;
    const ACKNOWLEDGED_A_LIFE: usize = 60;
    let dir = tempfile::tempdir().unwrap();
    let acknowledged: Mutex<HashMap<String, String>> = Mutex::default();
    for life in 0..KILLS {
        let mut server = Server::up(dir.path());
        let http = server.addr("http").to_owned();
        let count = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..8)
                .map(|client| {
                    let (http, count, acknowledged) = (&http, &count, &acknowledged);
                    scope.spawn(move || {
                        // Ends when the killed server no longer answers.
                        for n in 0.. {
                            let key = format!("k-{life}-{client}-{n}");
                            let body = ORDER.replace("c1", &format!("c{}", (n + client) % 5));
                            let Ok(answer) = server::try_post(http, "/orders", &[("x-idempotency-key", &key)], &body) else {
                                return;
                            };
                            assert_eq!(answer.status, 201, "{}", answer.body);
                            let id = serde_json::from_str::<Value>(&answer.body).unwrap()["orderId"].as_str().unwrap().to_owned();
                            assert_eq!(acknowledged.lock().unwrap().insert(id, key), None, "an id was given twice");
                            count.fetch_add(1, Ordering::SeqCst);
                        }
                    })
                })
                .collect();
            eventually(Duration::from_secs(30), "enough orders are acknowledged", || {
                (count.load(Ordering::SeqCst) >= ACKNOWLEDGED_A_LIFE).then_some(())
            });
            server.kill();
            for client in clients {
                client.join().unwrap();
            }
        });
    }
    let mut server = Server::up(dir.path());
    let acknowledged = acknowledged.into_inner().unwrap();
    assert!(acknowledged.len() >= KILLS * ACKNOWLEDGED_A_LIFE);
    for id in acknowledged.keys() {
        eventually(Duration::from_mins(1), "an acknowledged order is processed", || {
            let answer = get(server.addr("http"), &format!("/orders/{id}"));
            assert_eq!(answer.status, 200, "an acknowledged order is lost: {}", answer.body);
            answer.body.contains(r#""status":"processed""#).then_some(())
        });
    }
    let events_of = |name: &str| {
        let mut events: HashMap<String, HashSet<String>> = HashMap::new();
        for event in topic(&server, name) {
            let order = event["data"]["orderId"].as_str().unwrap().to_owned();
            events.entry(order).or_default().insert(event["eventId"].as_str().unwrap().to_owned());
        }
        events
    };
    let (created, processed) = (events_of("orders.created"), events_of("orders.processed"));
    for id in acknowledged.keys() {
        assert_eq!(created.get(id).map(HashSet::len), Some(1), "order {id} was announced under one event id");
        assert_eq!(processed.get(id).map(HashSet::len), Some(1), "order {id} was processed under one event id");
    }
    let keys: HashSet<_> = acknowledged.values().collect();
    assert_eq!(keys.len(), acknowledged.len(), "a key made two orders");
    assert_eq!(server.terminate(), Some(0));
}
