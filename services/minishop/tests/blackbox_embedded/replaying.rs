//! `minishop events replay` beside a running server.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use serde_json::Value;

use crate::process::{Process, minishop};
use crate::rest::{get, post};
use crate::wait::eventually;
use crate::{topic, up};

const WAIT: Duration = Duration::from_secs(20);

fn create_topic(server: &Process, name: &str) {
    let client: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", server.addr("kafka")).create().unwrap();
    let topic = NewTopic::new(name, 3, TopicReplication::Fixed(1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let made = runtime.block_on(client.create_topics(&[topic], &AdminOptions::new())).unwrap();
    assert!(made[0].is_ok(), "{made:?}");
}

fn replay(server: &Process, dir: &Path, words: &[&str]) -> Output {
    let mut command = minishop(&[&["events", "replay"], words].concat());
    command.env("MINISHOP_DATA_DIR", dir.join("data")).env("MINISHOP_KAFKA_ADDR", server.addr("kafka"));
    command.output().unwrap()
}

fn refused(server: &Process, dir: &Path, words: &[&str]) -> (Option<i32>, String) {
    let done = replay(server, dir, words);
    (done.status.code(), String::from_utf8(done.stderr).unwrap())
}

fn order(server: &Process, customer: &str) -> String {
    let body = format!(r#"{{"customerId":"{customer}","currency":"BRL","items":[{{"productId":"p1","qty":3,"price":0.1}}]}}"#);
    let answer = post(server.addr("http"), "/orders", &[("x-correlation-id", "corr-r")], &body);
    let id = serde_json::from_str::<Value>(&answer.body).unwrap()["orderId"].as_str().unwrap().to_owned();
    eventually(WAIT, "the order is processed", || {
        get(server.addr("http"), &format!("/orders/{id}")).body.contains(r#""status":"processed""#).then_some(())
    });
    id
}

#[test]
fn history_is_published_again_to_another_topic_and_to_no_live_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Process::start(up(dir.path()));
    let (first, _other, third) = (order(&server, "c1"), order(&server, "c2"), order(&server, "c1"));
    create_topic(&server, "history");
    let no = |words: &[&str]| refused(&server, dir.path(), words);
    for (words, field) in [
        (&["--to-topic", "orders.created", "--customer", "c1"][..], "topic NOT_ALLOWED"),
        (&["--to-topic", "orders.created.dlq", "--customer", "c1"], "topic NOT_ALLOWED"),
        (&["--to-topic", "nowhere", "--customer", "c1"], "topic UNKNOWN_VALUE"),
        (&["--to-topic", "history"], "selection REQUIRED"),
        (&["--to-topic", "history", "--from", "2026-02-01T00:00:00Z", "--to", "2026-01-01T00:00:00Z"], "to OUT_OF_RANGE"),
        (&["--to-topic", "history", "--order", "0190163d-8694-739b-aea5-966c26f8ad91"], "ORDER_NOT_FOUND"),
    ] {
        let (code, said) = no(words);
        assert!(code == Some(1) && said.contains(field), "{words:?}: {code:?} {said}");
    }
    let (code, said) = no(&["--to-topic", "history", "--customer", "c1"]);
    assert!(code == Some(2) && said.contains("error[USAGE]"), "{said}");
    let json = |words: &[&str]| -> Value {
        let done = replay(&server, dir.path(), &[words, &["--to-topic", "history", "--output", "json"]].concat());
        assert_eq!(done.status.code(), Some(0), "{done:?}");
        serde_json::from_slice(&done.stdout).unwrap()
    };
    let future = json(&["--from", "2999-01-01T00:00:00Z", "--yes"]);
    assert_eq!((&future["orders"], &future["published"]), (&0.into(), &0.into()));
    let dry = json(&["--customer", "c1", "--dry-run"]);
    assert_eq!((&dry["orders"], &dry["events"], &dry["published"]), (&2.into(), &4.into(), &0.into()));
    assert!(topic(&server, "history").is_empty());

    assert_eq!(json(&["--customer", "c1", "--yes", "--rate", "1000", "--operator", "ana"])["published"], 4);
    let again = topic(&server, "history");
    let mut live = [topic(&server, "orders.created"), topic(&server, "orders.processed")].concat();
    live.retain(|event| event["data"]["customerId"] == "c1");
    let of = |events: &[Value], id: &str| -> Vec<String> {
        events.iter().filter(|event| event["data"]["orderId"] == id).map(Value::to_string).collect()
    };
    for id in [&first, &third] {
        assert_eq!(of(&again, id).len(), 2);
        assert_eq!(of(&again, id), of(&live, id), "the same events, created before processed");
    }
    let audit: Value = serde_json::from_str(&get(server.addr("http"), "/ops/audit").body).unwrap();
    let told: Vec<_> =
        audit["entries"].as_array().unwrap().iter().map(|e| (&e["action"], &e["outcome"], &e["operator"])).collect();
    assert_eq!(told, [(&"replay".into(), &"done".into(), &"ana".into()), (&"replay".into(), &"accepted".into(), &"ana".into())]);
    assert_eq!(server.terminate(), Some(0));
}
