//! What is forgotten, and what is not.

use std::time::Duration;

use minishop_core::ids::EventId;
use minishop_core::parking::State;
use minishop_platform::store::{Journal, ParkedEvent};

use crate::support::{Fixture, entry, event_id, parked};

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
