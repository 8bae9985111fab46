//! The consumer's transaction.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use futures::future::join_all;
use minishop_core::idempotency::Fingerprint;
use minishop_core::ids::{EventId, OrderId};
use minishop_core::order::Status;
use minishop_core::parking::State;
use minishop_core::position::Position;
use minishop_core::timeline::NoteKind;
use minishop_store::{ConsumerTx, DeadLetterFilter, InboxEntry, Journal, NewOrder, Note, Result, Role, Store, Transition};
use minishop_testkit::lot::parked;
use minishop_testkit::rows::{client, event, event_id, key, now, order, orders, too_large};

use crate::support::{Fixture, adopted, entry, list_of, processed};

async fn begin(store: &Store) -> Box<dyn ConsumerTx> {
    store.inbox.begin("worker").await.unwrap()
}

/// Settles and announces like a worker; returns the outbox number of each order that passed.
async fn settle(store: &Store, transitions: &[Transition]) -> HashMap<OrderId, i64> {
    let mut settlement = begin(store).await;
    let passed = settlement.apply(transitions).await.unwrap();
    let passed: Vec<_> = transitions.iter().filter(|transition| passed.contains(&transition.order_id)).collect();
    let events = passed.iter().map(|transition| transition.event.clone()).collect();
    let numbers = settlement.record(&Journal { events, ..Journal::default() }).await.unwrap();
    settlement.commit().await.unwrap();
    passed.into_iter().map(|transition| transition.order_id).zip(numbers).collect()
}

async fn record(store: &Store, journal: Journal) -> Vec<i64> {
    let mut settlement = begin(store).await;
    let places = settlement.record(&journal).await.unwrap();
    settlement.commit().await.unwrap();
    places
}

pub async fn the_gate_answers_fresh_once(f: Fixture) {
    let ids: Vec<EventId> = (0..100).map(|_| event_id()).collect();
    let entries: Vec<_> = ids.iter().copied().map(entry).collect();
    for fresh in [100, 0] {
        let mut settlement = begin(&f.store).await;
        let gate = settlement.gate(&entries).await.unwrap();
        assert_eq!((gate.fresh.len(), gate.settled.len()), (fresh, 100 - fresh));
        settlement.commit().await.unwrap();
    }
    assert_eq!(f.count("inbox").await, 100);
}

pub async fn the_gate_tells_the_digest_under_which_an_event_was_settled(f: Fixture) {
    let id = event_id();
    let mut settlement = begin(&f.store).await;
    settlement.gate(&[InboxEntry { data_sha: [5; 32], ..entry(id) }]).await.unwrap();
    settlement.commit().await.unwrap();
    let mut settlement = begin(&f.store).await;
    let gate = settlement.gate(&[InboxEntry { data_sha: [6; 32], ..entry(id) }, entry(event_id())]).await.unwrap();
    assert_eq!(gate.settled, HashMap::from([(id, [5; 32])]));
    assert_eq!(gate.fresh.len(), 1);
}

pub async fn a_consumer_has_a_gate_of_its_own(f: Fixture) {
    let id = event_id();
    for consumer in ["one", "two"] {
        let mut settlement = f.store.inbox.begin(consumer).await.unwrap();
        assert!(settlement.gate(&[entry(id)]).await.unwrap().fresh.contains(&id));
        settlement.commit().await.unwrap();
    }
}

pub async fn two_transactions_at_one_gate_let_one_pass(f: Fixture) {
    let entries: Vec<_> = (0..50).map(|_| entry(event_id())).collect();
    let stores = [f.store.clone(), f.second().await];
    let pass = async |store: Store, entries: Vec<InboxEntry>| {
        let mut settlement = begin(&store).await;
        let fresh = settlement.gate(&entries).await.unwrap().fresh.len();
        settlement.commit().await.unwrap();
        fresh
    };
    let backwards = entries.iter().rev().cloned().collect();
    let [one, two] = stores;
    let (a, b) = futures::join!(pass(one, entries), pass(two, backwards));
    assert_eq!((a + b, a * b), (50, 0), "one of them found all, the other none");
}

pub async fn a_dropped_settlement_leaves_nothing(f: Fixture) {
    let made = order("a", "k1");
    f.accept(std::slice::from_ref(&made)).await;
    let mut settlement = begin(&f.store).await;
    settlement.gate(&[entry(made.event.event_id)]).await.unwrap();
    assert_eq!(settlement.apply(&[processed(&made)]).await.unwrap().len(), 1);
    settlement.record(&Journal { parked: vec![parked("c1", State::Dead, true)], ..Journal::default() }).await.unwrap();
    drop(settlement);
    let mut again = begin(&f.store).await;
    assert_eq!(again.gate(&[entry(made.event.event_id)]).await.unwrap().fresh.len(), 1);
    drop(again);
    assert_eq!(f.get(&made).await.unwrap().status, Status::Created);
    assert_eq!((f.count("inbox").await, f.count("parked").await, f.count("outbox_event").await), (0, 0, 1));
}

pub async fn a_settlement_after_a_failed_step_cannot_commit(f: Fixture) {
    let made = order("a", "k1");
    f.accept(std::slice::from_ref(&made)).await;
    let mut settlement = begin(&f.store).await;
    settlement.gate(&[entry(made.event.event_id)]).await.unwrap();
    assert_eq!(settlement.apply(&[processed(&made)]).await.unwrap().len(), 1);
    let impossible = too_large(processed(&made).event);
    assert!(settlement.record(&Journal { events: vec![impossible], ..Journal::default() }).await.is_err());
    assert!(settlement.record(&Journal::default()).await.is_err());
    assert!(settlement.commit().await.is_err());
    assert_eq!(f.count("inbox").await, 0);
    assert_eq!(settle(&f.store, &[processed(&made)]).await.len(), 1, "the next transaction runs");
}

pub async fn the_fence_lets_a_version_pass_once(f: Fixture) {
    let made = order("a", "k1");
    f.accept(std::slice::from_ref(&made)).await;
    let first = processed(&made);
    assert_eq!(settle(&f.store, std::slice::from_ref(&first)).await.len(), 1);
    assert_eq!(settle(&f.store, &[first]).await, HashMap::new());
    assert_eq!(settle(&f.second().await, &[Transition { to: Status::Cancelled, ..processed(&made) }]).await, HashMap::new());
    let row = f.get(&made).await.unwrap();
    assert_eq!((row.status, row.version), (Status::Processed, 2));
    assert_eq!((f.count("timeline").await, f.count("outbox_event").await), (1, 2));
}

pub async fn the_fence_refuses_another_version_and_another_status(f: Fixture) {
    let made = order("a", "k1");
    f.accept(std::slice::from_ref(&made)).await;
    for expected_version in [0, 2] {
        assert!(settle(&f.store, &[Transition { expected_version, ..processed(&made) }]).await.is_empty());
    }
    assert!(settle(&f.store, &[processed(&order("a", "never accepted"))]).await.is_empty());
    assert_eq!(f.get(&made).await.unwrap().version, 1);
}

pub async fn outbox_numbers_follow_the_order_of_transitions(f: Fixture) {
    let batch = orders("a", 0..200);
    f.accept(&batch).await;
    // Neither the order of acceptance nor that of ids.
    let mut mixed: Vec<&NewOrder> = batch.iter().collect();
    mixed.sort_by_key(|order| order.head.order_id.0.as_u128().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 64);
    let transitions: Vec<_> = mixed.iter().map(|order| processed(order)).collect();
    let passed = settle(&f.store, &transitions).await;
    let numbers: Vec<_> = mixed.iter().map(|order| passed[&order.head.order_id]).collect();
    assert_eq!(numbers, (1..=200).collect::<Vec<_>>());
    let rows = f.pending().await.into_iter().filter(|row| row.event.order_version == Some(2));
    let announced: Vec<_> = rows.map(|row| (row.number, row.event)).collect();
    assert_eq!(announced, numbers.into_iter().zip(transitions.into_iter().map(|t| t.event)).collect::<Vec<_>>());
    assert_eq!(f.count("timeline").await, 200);
}

pub async fn an_adopted_order_is_known_and_readable(f: Fixture) {
    let foreign = order("a", "k1");
    let mut settlement = begin(&f.store).await;
    assert!(settlement.orders(&[foreign.head.order_id], &[]).await.unwrap().is_empty());
    assert_eq!(settlement.adopt(&[adopted(&foreign)]).await.unwrap(), HashSet::from([foreign.head.order_id]));
    let known = settlement.orders(&[foreign.head.order_id], &[(client("a"), key("k1"))]).await.unwrap();
    assert_eq!(known.len(), 1, "found by id and by key, told once");
    assert_eq!((known[0].status, known[0].version), (Status::Created, 1));
    assert_eq!((known[0].fingerprint, known[0].created_event_id), (foreign.fingerprint, foreign.event.event_id));
    assert_eq!(settlement.apply(&[processed(&foreign)]).await.unwrap().len(), 1);
    settlement.commit().await.unwrap();
    assert_eq!(f.get(&foreign).await.unwrap().status, Status::Processed);
    assert_eq!(f.store.reads.orders(&list_of("a")).await.unwrap().len(), 1);
}

pub async fn adoption_gives_way_to_the_same_id_and_to_the_same_key(f: Fixture) {
    let mine = order("a", "k1");
    f.accept(std::slice::from_ref(&mine)).await;
    let same_key = order("a", "k1");
    let mut same_id = order("a", "k2");
    same_id.head.order_id = mine.head.order_id;
    let new = order("a", "k3");
    let mut settlement = begin(&f.store).await;
    let made = settlement.adopt(&[adopted(&same_key), adopted(&same_id), adopted(&new)]).await.unwrap();
    assert_eq!(made, HashSet::from([new.head.order_id]));
    let known = settlement.orders(&[], &[(client("a"), key("k1")), (client("a"), key("k2"))]).await.unwrap();
    assert_eq!(known.iter().map(|order| order.order_id).collect::<Vec<_>>(), [mine.head.order_id]);
    assert_eq!(known[0].fingerprint, Fingerprint([7; 32]));
    settlement.commit().await.unwrap();
}

pub async fn a_parked_key_is_seen_after_the_gate(f: Fixture) {
    let second = f.second().await;
    let keys = [Bytes::from_static(b"c1"), Bytes::from_static(b"c2")];
    record(&f.store, Journal { parked: vec![parked("c1", State::Retrying, true)], ..Journal::default() }).await;
    let mut settlement = begin(&second).await;
    settlement.gate(&[entry(event_id())]).await.unwrap();
    assert_eq!(settlement.parked_keys(&keys).await.unwrap(), HashSet::from([Bytes::from_static(b"c1")]));
    drop(settlement);
    let mut other = f.store.inbox.begin("another consumer").await.unwrap();
    assert!(other.parked_keys(&keys).await.unwrap().is_empty());
}

pub async fn an_event_that_does_not_block_parks_no_key(f: Fixture) {
    record(&f.store, Journal { parked: vec![parked("c1", State::Dead, false)], ..Journal::default() }).await;
    assert!(begin(&f.store).await.parked_keys(&[Bytes::from_static(b"c1")]).await.unwrap().is_empty());
}

pub async fn dead_letters_are_listed_newest_first(f: Fixture) {
    let dead: Vec<_> = (0..5).map(|n| parked(&format!("c{n}"), State::Dead, false)).collect();
    let mut all = dead.clone();
    all.push(parked("c9", State::Waiting, true));
    record(&f.store, Journal { parked: all, ..Journal::default() }).await;
    let page = f.store.operations.dead_letters(&DeadLetterFilter::default(), None, 3).await.unwrap();
    let rest = f.store.operations.dead_letters(&DeadLetterFilter::default(), Some(page[2].id), 3).await.unwrap();
    let listed: Vec<_> = page.iter().chain(&rest).map(|letter| letter.event_id).collect();
    assert_eq!(listed, dead.iter().rev().map(|event| event.event_id).collect::<Vec<_>>());
    let letter = &page[0];
    assert_eq!(letter.position, ("orders.created".to_owned(), 3, 42));
    assert_eq!((&*letter.error_class, &*letter.error_code), ("refused", "DATA_INVALID"));
    assert_eq!((letter.first_failed_at, letter.last_failed_at), (now(), now()));
    assert_eq!(f.store.reads.parked_counts().await.unwrap(), HashMap::from([(State::Dead, 5), (State::Waiting, 1)]));
}

pub async fn text_with_a_null_character_parks_like_any_other(f: Fixture) {
    let mut odd = parked("c1", State::Dead, false);
    odd.event_type = Some("a\0b".into());
    odd.error_message = Some("type a\0b is unknown".into());
    record(&f.store, Journal { parked: vec![odd.clone()], ..Journal::default() }).await;
    assert_eq!(f.store.operations.dead_letters(&DeadLetterFilter::default(), None, 3).await.unwrap()[0].event_id, odd.event_id);
}

pub async fn dead_letter_events_get_their_places_in_order(f: Fixture) {
    let made = orders("a", 0..70);
    let events: Vec<_> = made.iter().rev().map(|order| event(Role::Worker, "c1", order.head.order_id, 1)).collect();
    let places = record(&f.store, Journal { events: events.clone(), ..Journal::default() }).await;
    assert_eq!(places, (1..=70).collect::<Vec<_>>());
    let rows = f.pending().await;
    assert_eq!(rows.iter().map(|row| row.number).collect::<Vec<_>>(), places);
    assert_eq!(rows.into_iter().map(|row| row.event).collect::<Vec<_>>(), events);
}

pub async fn positions_only_grow(f: Fixture) {
    let at = |partition, next_offset| Position { topic: "orders.created".into(), partition, next_offset };
    for positions in [vec![at(0, 10), at(1, 5)], vec![at(0, 7), at(1, 6)]] {
        record(&f.store, Journal { positions, ..Journal::default() }).await;
    }
    let mut positions = f.store.reads.positions("worker").await.unwrap();
    positions.sort_by_key(|position| position.partition);
    assert_eq!(positions, [at(0, 10), at(1, 6)]);
    assert!(f.store.reads.positions("another").await.unwrap().is_empty());
}

pub async fn a_settlement_that_never_ends_does_not_stop_the_others(f: Fixture) {
    let mut held = begin(&f.store).await;
    held.gate(&[entry(event_id())]).await.unwrap();
    f.accept(&orders("a", 0..3)).await;
    let last = f.pending().await.pop().unwrap();
    assert!(f.acknowledge("a", last.event.shard, last.number).await);
    drop(held);
    assert_eq!((f.count("orders").await, f.count("inbox").await), (3, 0));
}

pub async fn settlements_and_orders_run_side_by_side(f: Fixture) {
    let settled = async |n: usize| -> Result<()> {
        let batch = orders(&format!("client-{n}"), 0..20);
        // On a slow disk the intake's short lock timeout ends while a table grows; its writer retries, too.
        let mut intake = f.store.orders.intake().await?;
        while let Err(error) = intake.accept(&batch).await {
            assert!(error.is_contended(), "{error:?}");
        }
        let mut settlement = f.store.inbox.begin("worker").await?;
        settlement.gate(&batch.iter().map(|order| entry(order.event.event_id)).collect::<Vec<_>>()).await?;
        let transitions: Vec<_> = batch.iter().map(processed).collect();
        settlement.apply(&transitions).await?;
        let events = transitions.into_iter().map(|transition| transition.event).collect();
        let note = |order: &NewOrder| Note {
            order_id: order.head.order_id,
            kind: NoteKind::Adopted,
            at: now(),
            cause: order.event.event_id,
            detail: Some("{}".into()),
        };
        let duplicates = batch.iter().map(|order| (order.event.event_id, order.head.order_id)).collect();
        let notes = batch.iter().map(note).collect();
        settlement.record(&Journal { notes, duplicates, events, ..Journal::default() }).await?;
        if n.is_multiple_of(4) {
            return Ok(());
        }
        settlement.commit().await
    };
    for outcome in join_all((0..16).map(settled)).await {
        outcome.unwrap();
    }
    assert_eq!(f.count("orders WHERE status = 'processed'").await, 12 * 20);
    assert_eq!(f.count("inbox WHERE order_id IS NOT NULL").await, 12 * 20);
    assert_eq!((f.count("timeline").await, f.count("outbox_event").await), (2 * 12 * 20, (16 + 12) * 20));
}
