//! Checks the promises against store and topics.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use minishop_bus::Record;
use minishop_testkit::blocking::block_on;
use minishop_testkit::database::Database;
use serde_json::Value;
use uuid::Uuid;

use crate::support::load::{Promise, in_full};

/// The checker's view of an installation. Both databases run the same statements.
pub trait Ledger {
    /// Returns the store's database.
    fn database(&self) -> &Database;
    /// Reads all records of a topic, in order per partition.
    fn records(&self, topic: &str) -> Vec<Record>;

    /// Queries the store for one number.
    fn number(&self, sql: &str) -> i64 {
        block_on(self.database().number(sql))
    }

    /// Counts the events that wait in the outbox.
    fn waiting(&self) -> i64 {
        self.number("SELECT count(*) FROM outbox_waiting")
    }

    /// Counts the transactions that the store rolled back because of a deadlock. SQLite has one writer.
    fn deadlocks(&self) -> i64 {
        let sql = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
        if self.database().is_distributed() { self.number(sql) } else { 0 }
    }
}

/// A row of `orders`.
#[derive(Debug, sqlx::FromRow)]
pub struct Order {
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

const ORDERS: &str = "SELECT order_id AS id, idempotency_key, customer_id, status, version, total_minor, created_event_id, \
    settled_event_id, (SELECT count(*) FROM timeline t WHERE t.order_id = o.order_id AND t.version IS NOT NULL) AS status_rows \
    FROM orders o";

/// How often [`settled`] looks: each look connects anew, which takes time from the processes under test.
const LOOK: Duration = Duration::from_millis(100);

/// Waits until nothing is in flight; gives up after a minute without progress. How long it takes in all depends on how many
/// orders the clients had accepted, so on the speed of the machine.
pub fn settled(ledger: &impl Ledger) {
    let (mut least, mut since) = (i64::MAX, Instant::now());
    loop {
        let (orders, events) = (ledger.number("SELECT count(*) FROM orders WHERE status = 'created'"), ledger.waiting());
        if orders + events == 0 {
            return;
        }
        if orders + events < least {
            (least, since) = (orders + events, Instant::now());
        }
        let open = format!("{orders} orders are not processed and {events} events not sent");
        assert!(since.elapsed() < Duration::from_mins(1), "no progress for a minute: {open}");
        std::thread::park_timeout(LOOK);
    }
}

/// Waits until nothing is in flight, then checks store and topics: each promise is kept once and in order, there is no
/// order that nobody sent, and nothing was given up.
pub fn check(ledger: &impl Ledger, promises: &[Promise]) {
    settled(ledger);
    let rows: Vec<Order> = block_on(ledger.database().rows(ORDERS));
    let orders: HashMap<Uuid, Order> = rows.into_iter().map(|order| (order.id, order)).collect();
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
    let created = Events::read(ledger, "orders.created", &orders);
    let processed = Events::read(ledger, "orders.processed", &orders);
    for order in orders.values() {
        assert_eq!(created.ids(order), &HashSet::from([order.created_event_id]), "announced: {order:?}");
        assert_eq!(processed.ids(order), &order.settled_event_id.into_iter().collect::<HashSet<_>>(), "processed: {order:?}");
    }
    let promises: HashMap<Uuid, &Promise> = promises.iter().map(|promise| (promise.order, promise)).collect();
    let (announced, told) = (overtaken(&created.first, &promises), overtaken(&processed.first, &promises));
    assert_eq!(
        (announced, told),
        (0, 0),
        "orders of {} that were announced, and processed, behind one that was sent after their acknowledgement",
        orders.len()
    );
    let differing = created.first.iter().filter(|(key, orders)| processed.first[*key] != **orders).count();
    assert_eq!(differing, 0, "customers whose orders are processed in another order than they are announced in");
    for topic in ["orders.created.dlq", "orders.failed", "orders.cancelled"] {
        assert_eq!(ledger.records(topic), [], "{topic}");
    }
    assert_eq!(ledger.number("SELECT count(*) FROM parked"), 0, "parked events");
    let again = "SELECT count(*) FROM timeline WHERE kind = 'ignored'";
    assert_eq!(ledger.number(again), 0, "events that passed the gate a second time");
    assert_eq!(ledger.deadlocks(), 0, "transactions that waited for each other");
    let settled = ledger.number("SELECT count(*) FROM inbox");
    assert_eq!(settled, ledger.number("SELECT count(*) FROM orders"), "each event is settled once");
}

/// Counts the orders that come after one of the same customer that was sent only after their acknowledgement. Orders in
/// flight together may come in any order.
pub fn overtaken(first: &HashMap<String, Vec<Uuid>>, promises: &HashMap<Uuid, &Promise>) -> usize {
    let mut overtaken = 0;
    for orders in first.values() {
        let mut latest = None;
        for promise in orders.iter().map(|order| promises[order]) {
            if latest.is_some_and(|sent| promise.acknowledged < sent) {
                overtaken += 1;
                if overtaken <= 3 {
                    eprintln!("{} of {} stands behind one that was sent after its answer", promise.order, promise.customer);
                }
            }
            latest = latest.max(Some(promise.sent));
        }
    }
    overtaken
}

/// The events of a topic.
struct Events {
    /// Event ids by order.
    ids: HashMap<Uuid, HashSet<Uuid>>,
    /// Orders by record key, in the order of their first delivery.
    first: HashMap<String, Vec<Uuid>>,
}

impl Events {
    /// Reads a topic. Each envelope must have the six keys and agree with the stored order, and copies must be equal.
    fn read(ledger: &impl Ledger, topic: &str, orders: &HashMap<Uuid, Order>) -> Self {
        let mut events = Self { ids: HashMap::new(), first: HashMap::new() };
        let mut seen: HashMap<Uuid, Record> = HashMap::new();
        let mut partitions: HashMap<String, i32> = HashMap::new();
        for record in ledger.records(topic) {
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
