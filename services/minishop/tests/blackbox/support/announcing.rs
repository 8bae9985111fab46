//! An order whose event is lost is announced again and processed.

use std::collections::HashSet;
use std::time::Duration;

use minishop_testkit::blocking::eventually;
use minishop_testkit::rest::post;
use serde_json::{Value, json};

use crate::support::place::Place;

const PATIENCE: Duration = Duration::from_mins(1);

fn status(place: &Place<'_>, order: &str) -> String {
    place.read(&format!("/orders/{order}"))["status"].as_str().unwrap().to_owned()
}

fn processed(place: &Place<'_>, order: &str) {
    eventually(PATIENCE, "the order is processed", || status(place, order) == "processed");
    eventually(PATIENCE, "every event is sent", || place.read("/ops/status")["outboxDepth"] == 0);
}

/// Needs an installation without orders; `sql` runs a statement on its database.
pub fn an_order_whose_event_is_lost_is_announced_again_and_processed(place: &Place<'_>, sql: &dyn Fn(&'static str)) {
    let body = json!({"customerId": "c1", "items": [{"productId": "p1", "qty": 2, "price": 10.5}]});
    let made: Value = serde_json::from_str(&post(place.http, "/orders", &[], &body.to_string()).body).unwrap();
    let order = made["orderId"].as_str().unwrap();
    processed(place, order);
    let refused = place.run(&["order", "announce", order, "--output", "json"]);
    let told: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!((refused.status.code(), &told["skipped"][0]["reason"]), (Some(1), &json!("NOT_CREATED")), "{refused:?}");

    // As after a restore of an older store: the event was consumed, and no trace of it is left.
    for statement in [
        "DELETE FROM timeline",
        "DELETE FROM inbox",
        "UPDATE orders SET status = 'created', version = 1, settled_event_id = NULL",
    ] {
        sql(statement);
    }
    assert_eq!(place.json(&["order", "announce", "--older-than", "1m"])["orderIds"], json!([]), "it is younger");
    assert_eq!(place.json(&["order", "announce", order, "--dry-run"])["orderIds"], json!([order]));
    assert_eq!(status(place, order), "created");
    assert_eq!(place.events("orders.created").len(), 1, "a dry run writes nothing");
    let told = place.table(&["order", "announce", order, "--reason", "its event is lost", "--operator", "ana"]);
    assert!(told.contains(order) && told.contains("announced"), "{told}");
    processed(place, order);

    let created = place.events("orders.created");
    assert!(created.len() == 2 && created[0] == created[1], "the same event twice: {created:?}");
    let ids: HashSet<_> = place.events("orders.processed").iter().map(|event| event["eventId"].to_string()).collect();
    assert_eq!(ids.len(), 1, "and what follows from it is the same");
    let audit = place.json(&["dlq", "audit"]);
    let [entry] = &audit.as_array().unwrap()[..] else { panic!("one entry: {audit}") };
    assert_eq!((&entry["action"], &entry["operator"]), (&json!("announce"), &json!("ana")), "{entry}");
    assert_eq!(entry["reason"], "its event is lost");
}
