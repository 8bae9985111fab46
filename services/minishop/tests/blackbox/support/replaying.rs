//! `minishop events replay` on a running installation.

use std::time::Duration;

use minishop_testkit::blocking::{block_on, eventually};
use minishop_testkit::rest::post;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use serde_json::{Value, json};

use crate::support::place::Place;

const WAIT: Duration = Duration::from_mins(1);

fn create_topic(place: &Place<'_>, name: &str) {
    let client: AdminClient<DefaultClientContext> = ClientConfig::new().set("bootstrap.servers", place.brokers).create().unwrap();
    let topic = NewTopic::new(name, 3, TopicReplication::Fixed(1));
    let made = block_on(client.create_topics(&[topic], &AdminOptions::new())).unwrap();
    assert!(made[0].is_ok(), "{made:?}");
}

/// Creates an order and waits until it is processed.
fn order(place: &Place<'_>, customer: &str) -> Value {
    let body = format!(r#"{{"customerId":"{customer}","currency":"BRL","items":[{{"productId":"p1","qty":3,"price":0.1}}]}}"#);
    let answer = post(place.http, "/orders", &[("x-correlation-id", "corr-r")], &body);
    let id = serde_json::from_str::<Value>(&answer.body).unwrap()["orderId"].as_str().unwrap().to_owned();
    eventually(WAIT, "the order is processed", || {
        Some(place.read(&format!("/orders/{id}"))).filter(|order| order["status"] == "processed")
    })
}

/// Replays history and compares it with what was published first.
struct History<'a> {
    place: &'a Place<'a>,
    /// Number of topics replayed to.
    made: usize,
}

impl History<'_> {
    /// Replays a selection to a new topic; it must yield the events of these orders, byte for byte, each once and in order.
    fn again(&mut self, selection: &[&str], orders: &[&Value]) {
        self.made += 1;
        let topic = self.place.topic(&format!("history-{}", self.made));
        create_topic(self.place, &topic);
        let words = ["events", "replay", "--to-topic", &topic, "--rate", "1000", "--operator", "ana", "--reason", "new reader"];
        let told = self.place.json(&[&words[..], selection].concat());
        let events = 2 * orders.len();
        let wanted = json!({"orders": orders.len(), "events": events, "published": events, "topic": topic});
        assert_eq!(told, wanted, "{selection:?}");
        let again = minishop_testkit::topics::events(self.place.brokers, &topic);
        assert_eq!(again.len(), events, "{selection:?}: {again:#?}");
        let live = [self.place.events("orders.created"), self.place.events("orders.processed")].concat();
        for order in orders {
            let of = |events: &[Value]| -> Vec<String> {
                events.iter().filter(|event| event["data"]["orderId"] == order["orderId"]).map(Value::to_string).collect()
            };
            assert_eq!(of(&again), of(&live), "{selection:?}: the same events, created before processed");
        }
    }
}

/// Replays history by order, by customer and by time, but never to a live topic.
pub fn history_is_published_again_to_another_topic_and_to_no_live_one(place: &Place<'_>) {
    let (first, other, third) = (order(place, "c1"), order(place, "c2"), order(place, "c1"));
    let text = |order: &Value, name: &str| order[name].as_str().unwrap().to_owned();
    let history = place.topic("history");
    create_topic(place, &history);
    let to = |topic: &str, words: &[&str]| {
        let words = [&["events", "replay", "--to-topic", topic], words].concat();
        place.refused(&words)
    };
    for name in minishop_contracts::topics::ALL {
        // A topic of this installation, and one that another installation may have.
        for topic in [place.topic(name).as_str(), name] {
            let (code, said) = to(topic, &["--customer", "c1", "--yes"]);
            assert!(code == Some(1) && said.contains("topic NOT_ALLOWED"), "{topic}: {code:?} {said}");
        }
    }
    for (topic, words, wanted) in [
        ("nowhere", &["--customer", "c1", "--yes"][..], "topic UNKNOWN_VALUE"),
        (&history, &[], "selection REQUIRED"),
        (&history, &["--from", "2026-02-01T00:00:00Z", "--to", "2026-01-01T00:00:00Z"], "to OUT_OF_RANGE"),
        (&history, &["--order", "4711"], "order INVALID_FORMAT"),
        (&history, &["--order", "0190163d-8694-739b-aea5-966c26f8ad91"], "ORDER_NOT_FOUND"),
    ] {
        let (code, said) = to(topic, words);
        assert!(code == Some(1) && said.contains(wanted), "{words:?}: {code:?} {said}");
    }
    let (code, said) = to(&history, &["--customer", "c1"]);
    assert!(code == Some(2) && said.contains("error[USAGE]"), "{said}");
    for (words, wanted) in [
        (&["--from", "2999-01-01T00:00:00Z", "--yes"][..], json!({"orders": 0, "events": 0, "published": 0, "topic": history})),
        (&["--customer", "c1", "--dry-run"], json!({"orders": 2, "events": 4, "published": 0, "topic": history})),
    ] {
        let told = place.json(&[&["events", "replay", "--to-topic", &history], words].concat());
        assert_eq!(told, wanted, "{words:?}");
    }
    assert_eq!(minishop_testkit::topics::events(place.brokers, &history), [] as [Value; 0]);
    assert_eq!(place.read("/ops/audit")["entries"], json!([]), "nothing was published");

    let mut again = History { place, made: 0 };
    again.again(&["--customer", "c1", "--yes"], &[&first, &third]);
    again.again(&["--order", &text(&other, "orderId")], &[&other]);
    let (from, to) = (text(&other, "createdAt"), text(&third, "createdAt"));
    again.again(&["--from", &from, "--to", &to, "--yes"], &[&other]);
    again.again(&["--from", &from, "--yes"], &[&other, &third]);
    again.again(&["--to", &from, "--yes"], &[&first]);
    again.again(&["--customer", "c1", "--from", &from, "--yes"], &[&third]);

    assert_eq!((place.events("orders.created").len(), place.events("orders.processed").len()), (3, 3), "no live topic grew");
    let audit = place.read("/ops/audit");
    let told: Vec<_> =
        audit["entries"].as_array().unwrap().iter().map(|e| [&e["action"], &e["outcome"], &e["operator"]]).collect();
    let wanted = [json!("replay"), json!("done"), json!("accepted"), json!("ana")];
    let pair = [[&wanted[0], &wanted[1], &wanted[3]], [&wanted[0], &wanted[2], &wanted[3]]];
    assert_eq!(told, pair.repeat(again.made), "each replay is told when it begins and when it ends");
}
