//! What housekeeping removes, and what it keeps.

use std::time::Duration;

use minishop_core::ids::EventId;
use minishop_core::operation::Kind;
use minishop_core::parking::State;
use minishop_store::{Journal, NewOperation, ParkedEvent, Selection};
use minishop_testkit::lot::{operation, parked};
use minishop_testkit::rows::event_id;

use crate::repairing::dead;
use crate::support::{Fixture, entry};

const NOW: Duration = Duration::ZERO;
const HOUR: Duration = Duration::from_hours(1);

async fn settled(f: &Fixture, consumer: &str, events: &[EventId], journal: Journal) {
    let mut settlement = f.store.inbox.begin(consumer).await.unwrap();
    settlement.gate(&events.iter().copied().map(entry).collect::<Vec<_>>()).await.unwrap();
    settlement.record(&journal).await.unwrap();
    settlement.commit().await.unwrap();
}

pub async fn settled_events_are_forgotten_by_age_oldest_first_in_bites(f: Fixture) {
    let events: Vec<EventId> = (0..10).map(|_| event_id()).collect();
    settled(&f, "worker", &events[..6], Journal::default()).await;
    f.age(Duration::from_millis(5)).await;
    settled(&f, "worker", &events[6..], Journal::default()).await;
    settled(&f, "another", &events, Journal::default()).await;
    f.age(Duration::from_millis(5)).await;
    let forget = async |age, limit| f.store.housekeeping.forget_settled("worker", age, limit).await.unwrap();
    assert_eq!(forget(HOUR, 100).await, 0, "none is so old");
    assert_eq!(forget(NOW, 6).await, 6);
    let mut again = f.store.inbox.begin("worker").await.unwrap();
    let gate = again.gate(&events.iter().copied().map(entry).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(gate.fresh, events[..6].iter().copied().collect(), "the oldest went first");
    drop(again);
    assert_eq!((forget(NOW, 100).await, forget(NOW, 100).await), (4, 0));
    assert_eq!(f.count("inbox").await, 10, "another consumer's rows are its own");
}

pub async fn an_event_that_stands_in_the_lot_is_not_forgotten(f: Fixture) {
    let dead = ParkedEvent { ..parked("c1", State::Dead, true) };
    let events = [dead.event_id, event_id()];
    settled(&f, "worker", &events, Journal { parked: vec![dead], ..Journal::default() }).await;
    f.age(Duration::from_millis(5)).await;
    assert_eq!(f.store.housekeeping.forget_settled("worker", NOW, 100).await.unwrap(), 1);
    let mut again = f.store.inbox.begin("worker").await.unwrap();
    let gate = again.gate(&events.map(entry)).await.unwrap();
    assert!(gate.settled.contains_key(&events[0]) && gate.fresh.contains(&events[1]));
}

/// Begins an operation over `count` dead letters, none of which is claimed yet.
async fn begun(f: &Fixture, count: usize) {
    let selection = Selection::Ids(dead(f, count).await);
    let new = NewOperation { at: f.clock(), ..operation(Kind::Discard, selection) };
    f.store.operations.begin(&new).await.unwrap().unwrap();
}

/// Runs an operation that discards `count` dead letters: as many items, and two more audit rows.
async fn ended(f: &Fixture, count: usize) {
    begun(f, count).await;
    let operations = &f.store.operations;
    let run = operations.claim("w", HOUR, 1).await.unwrap().remove(0);
    for candidate in operations.discard_candidates(&run, count).await.unwrap() {
        operations.discard(&run, &candidate, None, f.clock()).await.unwrap().unwrap();
    }
    let tally = operations.decide(&run).await.unwrap().unwrap().tally;
    assert!(operations.end(&run, &tally, f.clock()).await.unwrap());
}

pub async fn operations_and_audit_are_forgotten_by_age_oldest_first_in_bites(f: Fixture) {
    const AGE: Duration = Duration::from_mins(30);
    ended(&f, 3).await;
    f.age(HOUR).await;
    ended(&f, 2).await;
    begun(&f, 4).await;
    let rows = async || (f.count("operation_item").await, f.count("operation").await, f.count("audit").await);
    let forget = async |age, limit| f.store.operations.forget(age, limit).await.unwrap();
    assert_eq!((forget(HOUR * 2, 100).await, rows().await), (0, (9, 3, 10)), "nothing is so old");
    assert_eq!((forget(AGE, 2).await, rows().await), (2, (7, 3, 10)), "an operation stays while it has items");
    assert_eq!((forget(AGE, 3).await, rows().await), (3, (6, 2, 9)));
    assert_eq!((forget(AGE, 100).await, rows().await), (4, (6, 2, 5)), "the rest of what is old, and nothing else");
    assert_eq!(forget(AGE, 100).await, 0);
    f.age(HOUR).await;
    assert_eq!((forget(AGE, 100).await, rows().await), (8, (4, 1, 0)), "what has not ended stays with its items");
    assert_eq!(f.store.operations.claim("w", HOUR, 9).await.unwrap()[0].operation.tally.pending, 4);
}
