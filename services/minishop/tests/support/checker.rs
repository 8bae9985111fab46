//! Counts what became of the promises, in the database and in the topics.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use minishop_platform::bus::Record;
use serde_json::Value;
use uuid::Uuid;

use crate::load::{Promise, in_full};
use crate::shop::Shop;
use crate::wait::eventually;

/// A row of `orders`.
#[derive(Debug, sqlx::FromRow)]
struct Order {
    id: Uuid,
    idempotency_key: String,
    customer_id: String,
    status: String,
    version: i32,
    total_minor: i64,
    created_event_id: Uuid,
    settled_event_id: Option<Uuid>,
    status_rows: i64,
}

/// Waits until nothing is on its way any more.
pub fn settled(shop: &Shop) {
    eventually(Duration::from_mins(1), "every order is processed and every event sent", || {
        let open = shop.number("SELECT (SELECT count(*) FROM outbox_waiting) + (SELECT count(*) FROM orders WHERE status = 'created')");
        (open == 0).then_some(())
    });
}

/// Waits until nothing is on its way any more, then holds database and topics to the promises: each one kept once, no order
/// that nobody sent, nothing given up.
pub fn check(shop: &Shop, promises: &[Promise]) {
    settled(shop);
    let orders = orders(shop);
    let wanted: HashSet<Uuid> = promises.iter().map(|p| p.order).collect();
    assert_eq!(wanted.len(), promises.len(), "two promises name one order");
    let (lost, phantoms) = (wanted.difference(&orders.keys().copied().collect()).count(), orders.len());
    assert_eq!((lost, phantoms), (0, wanted.len()), "acknowledged orders that are lost, and orders that there are");
    for promise in promises {
        let order = &orders[&promise.order];
        let kept = (order.idempotency_key.as_str(), order.customer_id.as_str(), order.total_minor);
        assert_eq!(kept, (promise.key.as_str(), promise.customer.as_str(), i64::from(promise.total_minor)));
        assert_eq!((order.status.as_str(), order.version, order.status_rows), ("processed", 2, 1), "{order:?}");
    }
    let created = Events::read(shop, "orders.created", &orders);
    let processed = Events::read(shop, "orders.processed", &orders);
    for order in orders.values() {
        assert_eq!(created.ids(order), &HashSet::from([order.created_event_id]), "announced: {order:?}");
        assert_eq!(processed.ids(order), &order.settled_event_id.into_iter().collect::<HashSet<_>>(), "processed: {order:?}");
    }
    let mut sequence: HashMap<&str, Vec<Uuid>> = HashMap::new();
    for promise in promises {
        sequence.entry(&promise.customer).or_default().push(promise.order);
    }
    for (customer, orders) in sequence {
        assert_eq!(created.first[customer], orders, "a customer's orders are announced in the order of their promises");
        assert_eq!(processed.first[customer], orders, "and processed in it");
    }
    for topic in ["orders.created.dlq", "orders.failed", "orders.cancelled"] {
        assert_eq!(shop.records(topic), [], "{topic}");
    }
    assert_eq!(shop.number("SELECT count(*) FROM parked"), 0, "parked events");
    let again = "SELECT count(*) FROM timeline WHERE kind = 'ignored'";
    assert_eq!(shop.number(again), 0, "events that passed the gate a second time");
    let settled = shop.number("SELECT count(*) FROM inbox");
    assert_eq!(settled, shop.number("SELECT count(*) FROM orders"), "each event is settled once");
}

fn orders(shop: &Shop) -> HashMap<Uuid, Order> {
    let sql = "SELECT order_id AS id, idempotency_key, customer_id, status, version, total_minor, created_event_id, settled_event_id, \
               (SELECT count(*) FROM timeline t WHERE t.order_id = o.order_id AND t.version IS NOT NULL) AS status_rows \
               FROM orders o";
    shop.rows::<Order>(sql).into_iter().map(|order| (order.id, order)).collect()
}

/// What a topic says.
struct Events {
    /// Event ids by order.
    ids: HashMap<Uuid, HashSet<Uuid>>,
    /// Orders by record key, in the order of their first delivery.
    first: HashMap<String, Vec<Uuid>>,
}

impl Events {
    /// Reads a topic; each envelope has the six keys and tells of its order what the database tells, and copies are equal.
    fn read(shop: &Shop, topic: &str, orders: &HashMap<Uuid, Order>) -> Self {
        let mut events = Self { ids: HashMap::new(), first: HashMap::new() };
        let mut seen: HashMap<Uuid, Record> = HashMap::new();
        let mut partitions: HashMap<String, i32> = HashMap::new();
        for record in shop.records(topic) {
            let value: Value = serde_json::from_slice(record.value.as_deref().unwrap()).unwrap();
            let mut keys: Vec<&String> = value.as_object().unwrap().keys().collect();
            keys.sort_unstable();
            assert_eq!(keys, ["correlationId", "data", "eventId", "idempotencyKey", "occurredAt", "type"]);
            assert_eq!(value["type"], format!("{topic}.v1"));
            let id = |value: &Value| value.as_str().unwrap().parse::<Uuid>().unwrap();
            let (event, order) = (id(&value["eventId"]), id(&value["data"]["orderId"]));
            let row = orders.get(&order).unwrap_or_else(|| panic!("an event of an order that is not there: {value}"));
            let key = String::from_utf8(record.key.as_deref().unwrap().to_vec()).unwrap();
            assert_eq!((&key, value["idempotencyKey"].as_str()), (&row.customer_id, Some(row.idempotency_key.as_str())));
            assert_eq!(value["data"]["total"].to_string(), in_full(row.total_minor), "{value}");
            assert_eq!(
                *partitions.entry(key.clone()).or_insert(record.partition),
                record.partition,
                "a key changes its partition"
            );
            if let Some(first) = seen.get(&event) {
                let same = (first.key == record.key, first.value == record.value, first.headers == record.headers);
                assert_eq!(same, (true, true, true), "a copy differs: {first:?} {record:?}");
                continue;
            }
            events.ids.entry(order).or_default().insert(event);
            events.first.entry(key).or_default().push(order);
            seen.insert(event, record);
        }
        events
    }

    fn ids(&self, order: &Order) -> &HashSet<Uuid> {
        self.ids.get(&order.id).unwrap_or_else(|| panic!("no event: {order:?}"))
    }
}
