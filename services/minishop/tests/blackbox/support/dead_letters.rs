//! Dead letters on the command line: inspected, redriven and discarded; and operations while they run.

use std::io::{BufRead as _, BufReader, Lines};
use std::process::{Child, ChildStdout};
use std::time::Duration;

use minishop_testkit::blocking::eventually;
use minishop_testkit::rest::post;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::{Value, json};

use crate::support::endpoint::Endpoint;
use crate::support::place::Place;

const WAIT: Duration = Duration::from_mins(1);
/// Number of records that are not events.
const GARBAGE: usize = 12;
/// Customers whose orders the endpoint refuses, with two orders each.
const CUSTOMERS: usize = 8;

/// Produces records that are not events.
pub fn produce_garbage(brokers: &str, topic: &str, count: usize) {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", brokers).set("linger.ms", "0").create().unwrap();
    for n in 0..count {
        let value = format!("garbage {n}");
        producer.send(BaseRecord::to(topic).key("k").payload(&value)).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(WAIT).unwrap();
}

fn order(place: &Place<'_>, customer: &str) -> String {
    let body = json!({"customerId": customer, "items": [{"productId": "p1", "qty": 2, "price": 10.5}]});
    let answer = post(place.http, "/orders", &[], &body.to_string());
    assert_eq!(answer.status, 201, "{}", answer.body);
    text(&serde_json::from_str::<Value>(&answer.body).unwrap()["orderId"])
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// Lists dead letters.
fn letters(place: &Place<'_>, filter: &[&str]) -> Vec<Value> {
    place.json(&[&["dlq", "list"], filter].concat()).as_array().unwrap().clone()
}

/// `minishop dlq status --watch`, until the scenario ends.
struct StatusWatch {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl StatusWatch {
    fn start(place: &Place<'_>) -> Self {
        let mut child = place.start(&["dlq", "status", "--watch", "--output", "json"]);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Reads until this many are dead and this many operations have ended.
    fn until(&mut self, dead: usize, ended: usize) {
        let told = |line: std::io::Result<String>| serde_json::from_str::<Value>(&line.unwrap()).unwrap();
        let wanted = |now: &Value| {
            let over = now["operations"].as_array().unwrap().iter().filter(|operation| !operation["endedAt"].is_null()).count();
            now["status"]["parked"]["dead"] == dead && over == ended
        };
        assert!(self.lines.by_ref().map(told).any(|now| wanted(&now)), "the stream ended before {dead} dead and {ended} ended");
    }
}

impl Drop for StatusWatch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the lot holds this many dead and waiting events and no retrying ones.
fn parked(place: &Place<'_>, dead: usize, waiting: usize) {
    let wanted = json!({"retrying": 0, "waiting": waiting, "dead": dead});
    eventually(WAIT, &format!("the lot holds {wanted}"), || place.json(&["dlq", "status"])["parked"] == wanted);
}

fn progress(place: &Place<'_>, operation: &str) -> Value {
    place.json(&["dlq", "operation", operation])["operation"].clone()
}

fn count(operation: &Value, name: &str) -> u64 {
    operation["progress"][name].as_u64().unwrap()
}

/// Runs everything that an operator does with dead letters, on an installation whose worker calls the endpoint.
pub fn dead_letters_are_looked_at_processed_again_and_given_up(place: &Place<'_>, endpoint: &Endpoint) {
    let mut watch = StatusWatch::start(place);
    let customers: Vec<String> = (0..CUSTOMERS).map(|n| format!("customer-{n}")).collect();
    for customer in &customers {
        endpoint.refuse(customer);
    }
    produce_garbage(place.brokers, &place.topic("orders.created"), GARBAGE);
    let orders: Vec<[String; 2]> = customers.iter().map(|customer| [order(place, customer), order(place, customer)]).collect();
    parked(place, GARBAGE + CUSTOMERS, CUSTOMERS);
    watch.until(GARBAGE + CUSTOMERS, 0);
    let first = looked_at(place, &orders[0][0]);
    refused_before_anything_begins(place, &first);
    stops_by_itself(place);
    endpoint.fix();
    rests_while_it_is_paused(place, &first);
    parked(place, 0, 0);
    let processed = place.events("orders.processed");
    for (customer, orders) in customers.iter().zip(&orders) {
        let of_customer = processed.iter().filter(|event| event["data"]["customerId"] == **customer);
        assert_eq!(of_customer.map(|event| text(&event["data"]["orderId"])).collect::<Vec<_>>(), orders, "{customer}'s order");
    }
    ends_when_it_is_cancelled(place, endpoint);
    is_told_in_the_audit(place);
    watch.until(0, 7);
    assert_eq!(letters(place, &[]), [] as [Value; 0]);
    assert_eq!(place.json(&["dlq", "keys"]), json!([]));
    let nothing = place.json(&["dlq", "redrive", "--all", "--yes"]);
    assert_eq!(nothing["matched"], 0, "0 matched is done");
    assert_eq!(place.refused(&["dlq", "--server", "http://127.0.0.1:1", "list"]).0, Some(69));
}

/// Inspects the dead letters in every way; returns the id of a record that is not an event.
fn looked_at(place: &Place<'_>, order: &str) -> String {
    let groups = place.json(&["dlq", "groups"]);
    let told: Vec<_> = groups.as_array().unwrap().iter().map(|group| (text(&group["errorCode"]), &group["count"])).collect();
    assert_eq!(told, [("JSON_INVALID".to_owned(), &json!(GARBAGE)), ("WEBHOOK_REFUSED".to_owned(), &json!(CUSTOMERS))]);
    let all = letters(place, &[]);
    let class = text(&all.iter().find(|letter| letter["errorCode"] == "JSON_INVALID").unwrap()["errorClass"]);
    let same_class = all.iter().filter(|letter| letter["errorClass"] == *class).count();
    for (filter, wanted) in [
        (&["--code", "JSON_INVALID"][..], GARBAGE),
        (&["--fingerprint", groups[1]["errorFingerprint"].as_str().unwrap()], CUSTOMERS),
        (&["--class", &class], same_class),
        (&["--topic", &place.topic("orders.created")], GARBAGE + CUSTOMERS),
        (&["--topic", "another"], 0),
        (&["--key", "customer-3"], 1),
        (&["--order", order], 1),
        (&["--limit", "5"], 5),
    ] {
        assert_eq!(letters(place, filter).len(), wanted, "{filter:?}");
    }

    let letter = &letters(place, &["--order", order])[0];
    assert_eq!((&letter["key"], &letter["attempts"]), (&json!("customer-0"), &json!(1)), "{letter}");
    let shown = place.json(&["dlq", "show", &text(&letter["id"])]);
    assert_eq!((&shown["deadLetter"]["orderId"], &shown["waiting"]), (&json!(order), &json!(1)), "{shown}");
    let garbage = letters(place, &["--code", "JSON_INVALID"]);
    let (newest, oldest) = (text(&garbage[0]["id"]), text(&garbage[GARBAGE - 1]["id"]));
    let told = place.table(&["dlq", "show", &newest]);
    assert!(told.contains(&format!("garbage {}", GARBAGE - 1)) && told.contains("JSON_INVALID"), "{told}");
    let (code, said) = place.refused(&["dlq", "show", "4711"]);
    assert!(code == Some(1) && said.contains("DEAD_LETTER_NOT_FOUND"), "{said}");

    let keys = place.json(&["dlq", "keys"]);
    assert_eq!(keys.as_array().unwrap().len(), CUSTOMERS, "what is no event holds up nobody");
    let key = keys.as_array().unwrap().iter().find(|key| key["key"] == "customer-0").unwrap();
    assert_eq!((&key["headState"], &key["headId"], &key["waiting"]), (&json!("dead"), &letter["id"], &json!(1)));
    let told = place.table(&["dlq", "status"]);
    let cells: Vec<Vec<&str>> = told.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(cells[0].last().zip(cells[1].last()), Some((&"DEAD", &(GARBAGE + CUSTOMERS).to_string().as_str())), "{told}");
    oldest
}

/// Sends requests that must be refused.
fn refused_before_anything_begins(place: &Place<'_>, id: &str) {
    let dry = place.json(&["dlq", "redrive", "--code", "JSON_INVALID", "--dry-run"]);
    assert_eq!((&dry["matched"], &dry["operation"]), (&json!(GARBAGE), &Value::Null));
    let dry = place.json(&["dlq", "discard", id, "--reason", "x", "--dry-run"]);
    assert_eq!((&dry["matched"], &dry["operation"]), (&json!(1), &Value::Null));
    for (words, wanted) in [
        (&["dlq", "discard", "--all", "--reason", "x"][..], (Some(2), "error[USAGE] dlq discard")),
        (&["dlq", "redrive", "--key", "customer-0"], (Some(2), "--yes")),
        (&["dlq", "discard", id], (Some(1), "reason REQUIRED")),
        (&["dlq", "redrive"], (Some(1), "ids REQUIRED")),
        (&["dlq", "redrive", "--all", "--yes", "--rate", "0"], (Some(1), "rate ")),
        (&["dlq", "operation", "4711"], (Some(1), "OPERATION_NOT_FOUND")),
        (&["dlq", "pause", "4711"], (Some(1), "OPERATION_NOT_FOUND")),
    ] {
        let (code, said) = place.refused(words);
        assert!(code == wanted.0 && said.contains(wanted.1), "{words:?}: {code:?} {said}");
    }
    assert_eq!(place.json(&["dlq", "operations"]), json!([]), "nothing was begun");
    assert_eq!(letters(place, &[]).len(), GARBAGE + CUSTOMERS, "nothing was changed");
}

/// A redrive before the fix fails with its first dead letter and leaves the others alone.
fn stops_by_itself(place: &Place<'_>) {
    let words = ["dlq", "redrive", "--code", "WEBHOOK_REFUSED", "--yes", "--wait", "--operator", "ana", "--reason", "too early"];
    let stopped = place.run(&[&words[..], &["--output", "json"]].concat());
    assert_eq!(stopped.status.code(), Some(1), "{stopped:?}");
    let told: Value = serde_json::from_slice(&stopped.stdout).unwrap();
    let operation = &told["operation"];
    assert_eq!((&operation["state"], &operation["stoppedBecause"]), (&json!("stopped"), &json!("1 of 1 failed")), "{told}");
    assert_eq!((count(operation, "failed"), count(operation, "skipped")), (1, CUSTOMERS as u64 - 1), "one went first: {told}");
    let redriven: Vec<i64> =
        letters(place, &["--code", "WEBHOOK_REFUSED"]).iter().filter_map(|l| l["redrives"].as_i64()).collect();
    assert_eq!((redriven.len(), redriven.iter().sum::<i64>()), (CUSTOMERS, 1), "all are dead, and one was tried again");
}

/// A paused redrive releases nothing, while discards continue; resumed, it processes everything.
fn rests_while_it_is_paused(place: &Place<'_>, id: &str) {
    let begun = place.json(&["dlq", "redrive", "--code", "WEBHOOK_REFUSED", "--yes", "--rate", "2", "--reason", "fixed"]);
    assert_eq!(begun["matched"], json!(CUSTOMERS), "the waiting ones are no dead letters: {begun}");
    let operation = text(&begun["operation"]["id"]);
    let paused = place.json(&["dlq", "pause", &operation, "--operator", "ana", "--reason", "a moment"]);
    assert_eq!(paused["operation"]["state"], "paused");
    let before = eventually(WAIT, "what was released is decided", || {
        Some(progress(place, &operation)).filter(|now| count(now, "released") == 0)
    });
    assert!(count(&before, "pending") > 0, "the pause came too late: {before}");

    let one = ["dlq", "discard", id, "4711", "--reason", "bytes of a stranger", "--operator", "ben", "--wait"];
    let one = place.json(&one);
    assert_eq!((&one["operation"]["state"], count(&one["operation"], "succeeded")), (&json!("done"), 1));
    assert_eq!(one["items"][0]["reason"], "NOT_FOUND");
    // This takes seconds, in which a redrive that is not paused would release more.
    let rest = ["dlq", "discard", "--code", "JSON_INVALID", "--yes", "--reason", "bytes of a stranger", "--rate", "4", "--wait"];
    let rest = place.run(&rest);
    assert_eq!(rest.status.code(), Some(0), "{rest:?}");
    let told = String::from_utf8(rest.stderr).unwrap();
    assert!(told.lines().last().unwrap().starts_with("11/11 decided"), "each change is a line: {told}");
    assert_eq!(progress(place, &operation), before, "a paused operation stays where it is");

    let resumed = place.json(&["dlq", "resume", &operation, "--reason", "go on"]);
    assert_eq!(resumed["operation"]["state"], "running");
    let done = place.json(&["dlq", "operation", &operation, "--wait"])["operation"].clone();
    assert_eq!(
        (&done["state"], count(&done, "succeeded"), count(&done, "failed")),
        (&json!("done"), CUSTOMERS as u64, 0),
        "{done}"
    );
}

/// A cancelled operation leaves the rest dead for others; a discard fails an order and makes the next event of its key due.
fn ends_when_it_is_cancelled(place: &Place<'_>, endpoint: &Endpoint) {
    let customers: Vec<String> = (0..CUSTOMERS).map(|n| format!("late-{n}")).collect();
    for customer in &customers {
        endpoint.refuse(customer);
    }
    let given_up = order(place, "late-0");
    let behind = order(place, "late-0");
    for customer in &customers[1..] {
        order(place, customer);
    }
    parked(place, CUSTOMERS, 1);
    let begun = place.json(&["dlq", "redrive", "--all", "--yes", "--rate", "1", "--failure-ratio", "1"]);
    let operation = text(&begun["operation"]["id"]);
    place.json(&["dlq", "cancel", &operation, "--operator", "ana", "--reason", "the wrong ones"]);
    let ended = place.run(&["dlq", "operation", &operation, "--wait", "--output", "json"]);
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let ended: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(ended["operation"]["stoppedBecause"], "cancelled by an operator", "{ended}");
    assert!(count(&ended["operation"], "skipped") > 0, "the cancel came too late: {ended}");
    parked(place, CUSTOMERS, 1);

    let words = ["dlq", "discard", "--order", &given_up, "--yes", "--wait", "--reason", "sold out", "--operator", "ben"];
    assert_eq!(count(&place.json(&words)["operation"], "succeeded"), 1, "nobody holds it any more");
    assert_eq!(place.json(&["order", "get", &given_up])["status"], "failed");
    eventually(WAIT, "the failure is told", || {
        let failed = place.events("orders.failed");
        failed.len() == 1 && failed[0]["data"]["orderId"] == *given_up
    });
    eventually(WAIT, "the next one of its key was tried", || {
        letters(place, &["--order", &behind]).first().filter(|letter| letter["attempts"] == 1).map(drop)
    });
    endpoint.fix();
    let done = place.json(&["dlq", "redrive", "--all", "--yes", "--wait", "--rate", "10000"]);
    assert_eq!(count(&done["operation"], "succeeded"), CUSTOMERS as u64, "{done}");
    assert_eq!(place.json(&["order", "get", &behind])["status"], "processed");
}

/// Checks who did what, and why.
fn is_told_in_the_audit(place: &Place<'_>) {
    let audit = place.json(&["dlq", "audit", "--limit", "1000"]);
    let audit = audit.as_array().unwrap();
    let told = |wanted: [&str; 4]| {
        let names = ["action", "outcome", "operator", "reason"];
        audit.iter().filter(|entry| names.iter().zip(wanted).all(|(name, wanted)| entry[name] == wanted)).count()
    };
    for (wanted, times) in [
        (["redrive", "accepted", "ana", "too early"], 1),
        (["redrive", "stopped", "ana", "too early"], 1),
        (["redrive", "accepted", "", "fixed"], 1),
        (["redrive", "done", "", "fixed"], 1),
        (["pause", "accepted", "ana", "a moment"], 1),
        (["resume", "accepted", "", "go on"], 1),
        (["cancel", "accepted", "ana", "the wrong ones"], 1),
        (["discard", "discarded", "ben", "bytes of a stranger"], 1),
        (["discard", "discarded", "", "bytes of a stranger"], GARBAGE - 1),
        (["discard", "discarded", "ben", "sold out"], 1),
    ] {
        assert_eq!(told(wanted), times, "{wanted:?} in {audit:#?}");
    }
    let operations = place.json(&["dlq", "operations"]);
    let kinds: Vec<_> = operations.as_array().unwrap().iter().map(|o| (text(&o["kind"]), text(&o["state"]))).collect();
    let wanted = [
        ("redrive", "done"),
        ("discard", "done"),
        ("redrive", "stopped"),
        ("discard", "done"),
        ("discard", "done"),
        ("redrive", "done"),
        ("redrive", "stopped"),
    ];
    assert_eq!(kinds, wanted.map(|(kind, state)| (kind.to_owned(), state.to_owned())), "newest first");
    for (words, heading) in [("operations", "KIND"), ("audit", "ACTION"), ("groups", "FINGERPRINT"), ("keys", "HEAD")] {
        let told = place.table(&["dlq", words]);
        assert!(told.lines().next().unwrap().contains(heading), "{told}");
    }
}
