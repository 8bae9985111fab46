//! One customer's orders fail while the others' flow; after the fix a redrive processes them all in order.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use minishop_testkit::blocking::eventually;
use minishop_testkit::rest::post;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::endpoint::Endpoint;
use crate::support::place::Place;

const CUSTOMERS: usize = 10;
const ORDERS: usize = 20;
const FAILING: &str = "customer-9";
const PATIENCE: Duration = Duration::from_mins(1);

/// Counts parked events by state.
fn parked(place: &Place<'_>) -> (u64, u64, u64) {
    let parked = &place.read("/ops/status")["parked"];
    let of = |state: &str| parked[state].as_u64().unwrap();
    (of("retrying"), of("waiting"), of("dead"))
}

/// Waits until every event is published.
fn sent(place: &Place<'_>) {
    eventually(PATIENCE, "every event is sent", || place.read("/ops/status")["outboxDepth"] == 0);
}

/// Reads the orders of a topic by customer, each once, in the order of its first delivery.
fn orders_in(place: &Place<'_>, topic: &str) -> HashMap<String, Vec<Uuid>> {
    let (mut orders, mut seen) = (HashMap::<String, Vec<Uuid>>::new(), HashMap::new());
    for event in place.events(topic) {
        let id = |value: &Value| value.as_str().unwrap().parse::<Uuid>().unwrap();
        let (order, event_id) = (id(&event["data"]["orderId"]), id(&event["eventId"]));
        if let Some(first) = seen.insert(order, event_id) {
            assert_eq!(first, event_id, "two events of one step of an order in {topic}");
            continue;
        }
        orders.entry(event["data"]["customerId"].as_str().unwrap().to_owned()).or_default().push(order);
    }
    orders
}

/// Sends the customers' orders in turn; returns them by customer, in the order of their acknowledgements.
fn order(place: &Place<'_>) -> HashMap<String, Vec<Uuid>> {
    let mut orders = HashMap::<String, Vec<Uuid>>::new();
    for n in 0..ORDERS * CUSTOMERS {
        let customer = format!("customer-{}", n % CUSTOMERS);
        let body = json!({"customerId": customer, "items": [{"productId": "p1", "qty": 2, "price": 10.5}]});
        let answer = post(place.http, "/orders", &[], &body.to_string());
        assert_eq!(answer.status, 201, "{}", answer.body);
        let id = serde_json::from_str::<Value>(&answer.body).unwrap()["orderId"].as_str().unwrap().parse().unwrap();
        orders.entry(customer).or_default().push(id);
    }
    orders
}

pub fn a_failing_customer_waits_and_is_repaired_in_order(place: &Place<'_>, endpoint: &Endpoint) {
    endpoint.refuse(FAILING);
    let promised = order(place);
    eventually(PATIENCE, "all but one customer's orders are processed", || {
        let open = place.read("/orders?status=created&pageSize=500");
        open["orders"].as_array().unwrap().len() == ORDERS
    });
    let rest = u64::try_from(ORDERS).unwrap() - 1;
    eventually(PATIENCE, "the head is dead and the others wait", || parked(place) == (0, rest, 1));
    sent(place);
    let mut flowed = promised.clone();
    let waiting = flowed.remove(FAILING).unwrap();
    assert_eq!(orders_in(place, "orders.processed"), flowed, "the nine flow, in their order");
    assert_eq!(orders_in(place, "orders.created.dlq"), HashMap::from([(FAILING.to_owned(), waiting[..1].to_vec())]));
    let keys = &place.read("/ops/parked-keys")["keys"];
    assert_eq!((&keys[0]["key"], &keys[0]["headState"], &keys[0]["waiting"]), (&json!(FAILING), &json!("dead"), &json!(rest)));

    endpoint.fix();
    let wanted = json!({"filter": {"errorCode": "WEBHOOK_REFUSED"}, "reason": "the endpoint was fixed"});
    let begun = post(place.http, "/ops/dead-letters/redrive", &[], &wanted.to_string());
    assert_eq!(begun.status, 200, "{}", begun.body);
    let begun: Value = serde_json::from_str(&begun.body).unwrap();
    assert_eq!(begun["matched"], 1, "the waiting ones are no dead letters: {begun}");
    let operation = format!("/ops/operations/{}", begun["operation"]["id"].as_str().unwrap());
    let done = eventually(PATIENCE, "the redrive is done", || {
        let operation = place.read(&operation)["operation"].clone();
        (operation["state"] == "done").then_some(operation)
    });
    assert_eq!((&done["progress"]["succeeded"], &done["progress"]["failed"]), (&json!(1), &json!(0)), "{done}");
    eventually(PATIENCE, "nothing is parked any more", || parked(place) == (0, 0, 0));
    sent(place);
    assert_eq!(orders_in(place, "orders.processed"), promised, "all are processed once, each customer's in their order");

    let mut fulfilled = HashMap::<String, Vec<Uuid>>::new();
    let mut events = HashSet::new();
    for call in endpoint.fulfilled() {
        if events.insert(call.event) {
            fulfilled.entry(call.customer).or_default().push(call.order);
        }
    }
    assert_eq!(fulfilled, promised, "the endpoint was asked for each order under one event id, in order");
}
