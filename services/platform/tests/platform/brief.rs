//! Outbox rows without value and headers, which the relay rebuilds from their orders when it reads the table.

use minishop_contracts::key::EventKey;
use minishop_core::order::{Item, Status};
use minishop_platform::clock::SystemIds;
use minishop_platform::events::created::CreatedEvents;
use minishop_platform::events::status_changed::{Cause, StatusChange, StatusEvents};
use minishop_platform::telemetry::propagation::TraceContext;
use minishop_store::{Journal, NewEvent, NewOrder, Role, Transition};
use minishop_testkit::ctx::config;
use minishop_testkit::database::Engine;
use minishop_testkit::rebuilt;
use minishop_testkit::rows::{event_id, now, order_of};

use crate::world::{Log, Running, TOPIC, World, emptied};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Returns an order with the event that the API writes.
fn accepted(key: &str, trace: Option<&TraceContext>) -> NewOrder {
    let mut order = order_of("a", key, &format!("customer {key}"));
    let items: Vec<Item> = serde_json::from_str(&order.items).unwrap();
    let events = CreatedEvents::new(TOPIC.to_owned(), EventKey::Customer);
    order.event = events.event(&order.head, event_id(), &items, trace);
    order.traceparent = trace.map(|trace| trace.traceparent().to_owned());
    order
}

/// Returns the change that the worker makes of an order.
fn processed(order: &NewOrder, trace: &TraceContext, causation_id: &str) -> Transition {
    let dir = tempfile::tempdir().unwrap();
    let events = StatusEvents::new(&config(dir.path()), Role::Worker);
    let cause = Cause { event_id: order.event.event_id, occurred_at: now(), causation_id, trace };
    events.change(StatusChange { order: &order.head, version: 1, to: Status::Processed }, &cause, now())
}

async fn apply(world: &World, transitions: &[Transition]) {
    let mut tx = world.store.inbox.begin("test").await.unwrap();
    assert_eq!(tx.apply(transitions).await.unwrap().len(), transitions.len());
    let events = transitions.iter().map(|transition| transition.event.clone()).collect();
    tx.record(&Journal { events, ..Journal::default() }).await.unwrap();
    tx.commit().await.unwrap();
}

/// Returns orders whose traces differ in what the store has of them, and changes of the first two.
fn some() -> (Vec<NewOrder>, Vec<Transition>) {
    let plain = TraceContext::parse(PARENT, None).unwrap();
    let vendor = TraceContext::parse(PARENT, Some("vendor=1")).unwrap();
    let orders = vec![accepted("k1", Some(&plain)), accepted("k2", Some(&vendor)), accepted("k3", None)];
    let cause = |n: usize| orders[n].event.event_id.to_string();
    let changes = vec![
        processed(&orders[0], &plain.child(&SystemIds), &cause(0)),
        processed(&orders[1], &vendor.child(&SystemIds), &cause(1)),
        processed(&orders[2], &plain, "an operator's request"),
    ];
    (orders, changes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_brief_row_is_rebuilt_as_the_event_that_was_built_byte_for_byte() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let Some(world) = World::on(engine).await else { continue };
        let (orders, changes) = some();
        world.accept(&orders).await;
        apply(&world, &changes).await;
        let mut built: Vec<NewEvent> = orders.into_iter().map(|order| order.event).collect();
        built.extend(changes.into_iter().map(|change| change.event));
        let mut read: Vec<NewEvent> = rebuilt::outbox(&world.store).await.into_iter().map(|row| row.event).collect();
        for events in [&mut built, &mut read] {
            events.sort_by_key(|event| event.event_id);
        }
        assert_eq!(read, built, "{engine:?}");
        assert_eq!(world.count("outbox_event WHERE payload IS NULL AND headers IS NULL").await, 5, "{engine:?}");
        assert_eq!(world.count("outbox_event WHERE trace IS NOT NULL").await, 3, "{engine:?}: what the orders do not have");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_relay_publishes_brief_rows_from_the_table_and_sets_aside_those_without_their_order() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let Some(world) = World::on(engine).await else { continue };
        let orders: Vec<NewOrder> = (0..20).map(|n| accepted(&format!("k{n:02}"), None)).collect();
        world.accept(&orders).await;
        let gone = &orders[3];
        world.sql(&format!("DELETE FROM orders WHERE order_id = {}", world.id(gone.head.order_id))).await;
        let other = &orders[5];
        let stranger = world.id(event_id());
        world
            .sql(&format!("UPDATE orders SET created_event_id = {stranger} WHERE order_id = {}", world.id(other.head.order_id)))
            .await;
        let log = Log::start().await;
        let running = Running::start(&world, log.addr);
        emptied(&world).await;
        running.stop().await;
        let mut published: Vec<_> = log.records(TOPIC).await.into_iter().map(|r| (r.key, r.value, r.headers.encode())).collect();
        let lost = [gone.event.event_id, other.event.event_id];
        let whole = orders.iter().map(|order| &order.event).filter(|event| !lost.contains(&event.event_id));
        let mut wanted: Vec<_> = whole.map(|e| (Some(e.record_key.clone()), e.payload.clone(), e.headers.clone())).collect();
        published.sort();
        wanted.sort();
        assert_eq!(published, wanted, "{engine:?}");
        let why = "outbox_set_aside WHERE reason LIKE '%the order that it is about is gone, or has another event%'";
        assert_eq!((world.count(why).await, world.count("outbox_set_aside").await), (2, 2), "{engine:?}");
    }
}
