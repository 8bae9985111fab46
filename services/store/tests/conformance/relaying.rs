//! The outbox as the relay uses it.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use minishop_core::ids::EventId;
use minishop_store::{ConsumerTx, Journal, Leadership, NewEvent, OutboxRow, Renewal, Result, Role, Span, Store, StoreError};
use minishop_testkit::rows::{all_shards, event, event_id, order, order_id, order_of, orders, outbox, too_large};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::Fixture;

/// Returns orders of many customers, whose events use every shard of the API.
pub fn of_many(client: &str, count: usize) -> Vec<minishop_store::NewOrder> {
    (0..count).map(|n| order_of(client, &format!("k{n:03}"), &format!("c{n}"))).collect()
}

/// Groups numbers and event ids by shard.
pub fn by_shard(rows: &[OutboxRow]) -> BTreeMap<i16, Vec<(i64, EventId)>> {
    let mut shards: BTreeMap<i16, Vec<_>> = BTreeMap::new();
    for row in rows {
        shards.entry(row.event.shard).or_default().push((row.number, row.event.event_id));
    }
    shards
}

pub fn assert_gapless(rows: &[OutboxRow]) {
    for (shard, rows) in by_shard(rows) {
        let numbers: Vec<i64> = rows.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, (1..=i64::try_from(rows.len()).unwrap()).collect::<Vec<_>>(), "shard {shard}");
    }
}

/// Returns events of the worker, all of one key.
pub fn of_one_key(count: usize) -> Vec<NewEvent> {
    (0..count).map(|_| event(Role::Worker, "c1", order_id(), 2)).collect()
}

pub async fn begin(store: &Store) -> Box<dyn ConsumerTx> {
    store.inbox.begin("worker").await.unwrap()
}

pub async fn record(settlement: &mut dyn ConsumerTx, events: &[NewEvent]) -> Result<Vec<i64>> {
    settlement.record(&Journal { events: events.to_vec(), ..Journal::default() }).await
}

pub async fn commit(store: &Store, events: &[NewEvent]) -> Vec<i64> {
    let mut settlement = begin(store).await;
    let numbers = record(settlement.as_mut(), events).await.unwrap();
    settlement.commit().await.unwrap();
    numbers
}

pub async fn numbers_are_gapless_and_in_the_order_of_the_commits_within_each_shard(f: Fixture) {
    let (mut shards, mut told) = (BTreeMap::<i16, Vec<_>>::new(), HashMap::new());
    let mut intake = f.store.orders.intake().await.unwrap();
    for n in 0..8 {
        let batch = of_many(&format!("client-{n}"), 40);
        let made = intake.accept(&batch).await.unwrap();
        let dead: Vec<_> = (0..20).map(|n| event(Role::Worker, &format!("c{n}"), order_id(), 2)).collect();
        let numbers = commit(&f.store, &dead).await;
        told.extend(batch.iter().map(|order| (order.event.event_id, made[&order.head.order_id])));
        told.extend(dead.iter().map(|event| event.event_id).zip(numbers));
        for event in batch.into_iter().map(|order| order.event).chain(dead) {
            shards.entry(event.shard).or_default().push(event.event_id);
        }
    }
    let rows = f.pending().await;
    assert_gapless(&rows);
    let found = by_shard(&rows);
    assert_eq!(found.len(), all_shards().len(), "every shard has rows");
    let events = |rows: Vec<(i64, EventId)>| rows.into_iter().map(|(_, event)| event).collect::<Vec<_>>();
    assert_eq!(found.into_iter().map(|(shard, rows)| (shard, events(rows))).collect::<BTreeMap<_, _>>(), shards);
    assert!(rows.iter().all(|row| told[&row.event.event_id] == row.number), "whoever wrote them was told the same");
}

pub async fn a_transaction_that_is_rolled_back_gives_its_numbers_back(f: Fixture) {
    let committed = of_one_key(2);
    assert_eq!(commit(&f.store, &committed).await, [1, 2]);
    let mut dropped = begin(&f.store).await;
    assert_eq!(record(dropped.as_mut(), &of_one_key(3)).await.unwrap(), [3, 4, 5]);
    drop(dropped);
    let mut refused = orders("a", 0..3);
    refused[2].event = too_large(refused[2].event.clone());
    assert!(f.store.orders.intake().await.unwrap().accept(&refused).await.is_err());
    let (next, order) = (of_one_key(2), order("a", "k"));
    assert_eq!(commit(&f.store, &next).await, [3, 4]);
    assert_eq!(
        f.store.orders.intake().await.unwrap().accept(std::slice::from_ref(&order)).await.unwrap()[&order.head.order_id],
        1
    );
    let rows = f.pending().await;
    assert_gapless(&rows);
    let wanted: Vec<_> = std::iter::once(order.event).chain(committed).chain(next).collect();
    assert_eq!(rows.into_iter().map(|row| row.event).collect::<Vec<_>>(), wanted);
}

pub async fn the_second_of_two_writers_waits_for_the_end_of_the_first(f: Fixture) {
    let second = f.second().await;
    for (round, commits) in [true, false].into_iter().enumerate() {
        let before = f.outbox().await.len();
        let mut first = begin(&f.store).await;
        let numbers = record(first.as_mut(), &of_one_key(2)).await.unwrap();
        let mut others = JoinSet::new();
        let store = second.clone();
        let task = others.spawn(async move { commit(&store, &of_one_key(1)).await });
        f.until_blocked(1, &task).await;
        assert!(!task.is_finished(), "it takes no number while another may give its own back");
        assert_eq!(f.outbox().await.len(), before, "and nobody sees a number that is not committed");
        if commits {
            first.commit().await.unwrap();
        } else {
            drop(first);
        }
        let next = others.join_next().await.unwrap().unwrap();
        assert_eq!(next[0], if commits { numbers[1] + 1 } else { numbers[0] }, "round {round}");
    }
    assert_gapless(&f.pending().await);
}

pub async fn whoever_sees_a_number_has_seen_all_before_it(f: Fixture) {
    let (second, ended) = (f.second().await, CancellationToken::new());
    let accepting = async |n: usize| {
        let mut intake = if n.is_multiple_of(2) { &f.store } else { &second }.orders.intake().await.unwrap();
        for round in 0..12 {
            let batch = of_many(&format!("client-{n}-{round}"), 20);
            while let Err(error) = intake.accept(&batch).await {
                assert!(error.is_contended(), "{error:?}");
            }
        }
    };
    let settling = async |store: &Store| {
        for round in 0..24 {
            let mut settlement = begin(store).await;
            let events: Vec<_> = (0..8).map(|n| event(Role::Worker, &format!("c{n}"), order_id(), 2)).collect();
            record(settlement.as_mut(), &events).await.unwrap();
            if round % 4 != 3 {
                settlement.commit().await.unwrap();
            }
        }
    };
    let writing = async {
        futures::join!(join_all((0..4).map(accepting)), settling(&f.store), settling(&second));
        ended.cancel();
    };
    let reading = async {
        let (mut seen, mut reads) = (BTreeMap::<i16, Vec<_>>::new(), 0);
        loop {
            let last = ended.is_cancelled();
            let rows = outbox(&f.store).await;
            assert_gapless(&rows);
            let now = by_shard(&rows);
            let kept = |(shard, rows): (&i16, &Vec<_>)| now.get(shard).is_some_and(|now| now.starts_with(rows));
            assert!(seen.iter().all(kept), "a number bears the same event for ever");
            (seen, reads) = (now, reads + 1);
            if last {
                return (seen, reads);
            }
        }
    };
    let ((), (seen, reads)) = futures::join!(writing, reading);
    assert_eq!(seen.values().map(Vec::len).sum::<usize>(), 4 * 12 * 20 + 2 * 18 * 8);
    assert!(reads > 2, "it was read while it was written");
}

pub async fn rows_are_read_in_the_order_of_their_numbers_within_each_span(f: Fixture) {
    f.accept(&of_many("a", 200)).await;
    let all = f.pending().await;
    assert!(all.is_sorted_by_key(|row| (row.event.shard, row.number)));
    let span = |shard, low, high| Span { shard, low, high };
    let spans = [span(0, 1, i64::MAX), span(2, 3, 5), span(3, 7, 7), span(17, 1, i64::MAX)];
    let in_span = |span: &Span| {
        let (shard, numbers) = (span.shard, span.low..span.high);
        all.iter().filter(move |row| row.event.shard == shard && numbers.contains(&row.number)).take(4).cloned()
    };
    let wanted: Vec<_> = spans.iter().flat_map(in_span).collect();
    assert_eq!(wanted.len(), 4 + 2);
    assert_eq!(f.store.outbox.read(&spans, 4).await.unwrap(), wanted);
    assert_eq!(f.store.outbox.read(&[], 4).await.unwrap(), []);
}

pub async fn rows_survive_the_outbox_byte_for_byte(f: Fixture) {
    let bytes: Bytes = (0..=255).collect();
    let dead = NewEvent {
        shard: 19,
        event_id: event_id(),
        topic: "orders.created.dlq".into(),
        record_key: bytes.clone(),
        order_id: None,
        order_version: None,
        payload: Some(Bytes::from(vec![0xff; 300_000])),
        headers: bytes,
        brief: None,
    };
    let tombstone = NewEvent { event_id: event_id(), payload: None, ..dead.clone() };
    commit(&f.store, &[dead.clone(), tombstone.clone()]).await;
    assert_eq!(f.pending().await, [OutboxRow::new(1, dead), OutboxRow::new(2, tombstone)]);
}

pub async fn a_shard_that_the_store_does_not_have_is_refused(f: Fixture) {
    let mut settlement = begin(&f.store).await;
    let strange = NewEvent { shard: 4, ..event(Role::Api, "c1", order_id(), 1) };
    let refused = record(settlement.as_mut(), &[strange]).await;
    assert!(matches!(refused, Err(StoreError::Fail { .. })), "{refused:?}");
    assert!(settlement.commit().await.is_err());
    assert_eq!(f.count("outbox_event").await, 0);
}

pub async fn a_row_that_is_set_aside_is_kept_with_its_reason_and_read_as_set_aside(f: Fixture) {
    let events = of_one_key(4);
    commit(&f.store, &events).await;
    let (shard, operations) = (events[0].shard, &f.store.operations);
    assert!(!operations.set_row_aside(shard, 2, events[2].event_id, "no").await.unwrap(), "another event bears the number");
    assert!(!operations.set_row_aside(shard, 5, event_id(), "no").await.unwrap(), "there is no such number");
    assert!(!operations.set_row_aside(shard - 1, 2, events[1].event_id, "no").await.unwrap(), "it is in another shard");
    assert_eq!((f.count("outbox_set_aside").await, f.pending().await.iter().any(|row| row.set_aside)), (0, false));
    for reason in ["it's too large", "again"] {
        assert!(operations.set_row_aside(shard, 2, events[1].event_id, reason).await.unwrap());
    }
    let rows = f.pending().await;
    assert_eq!(rows.iter().map(|row| row.set_aside).collect::<Vec<_>>(), [false, true, false, false]);
    assert_eq!(rows.into_iter().map(|row| row.event).collect::<Vec<_>>(), events);
    assert!(f.acknowledge("a", shard, 3).await, "it counts as published");
    assert_eq!((f.count("outbox_event").await, f.pending().await.len()), (2, 1));
    let kept = "outbox_set_aside s WHERE s.number = 2 AND s.reason = 'it''s too large' AND s.topic = 'orders.created' \
        AND s.order_version = 2 AND length(s.record_key) = 2 AND length(s.payload) = 15 AND length(s.headers) = 4";
    assert_eq!((f.count(kept).await, f.count("outbox_set_aside").await), (1, 1), "with the first reason");
}

pub async fn statistics_count_what_waits_and_its_age(f: Fixture) {
    let none = f.store.outbox.stats().await.unwrap();
    assert_eq!((none.depth, none.oldest), (0, Duration::ZERO));
    f.accept(&orders("a", 0..3)).await;
    f.age(Duration::from_mins(5)).await;
    commit(&f.store, &of_one_key(4)).await;
    let minutes = |n| Duration::from_mins(n)..Duration::from_mins(n + 1);
    let stats = f.store.outbox.stats().await.unwrap();
    assert_eq!((stats.depth, minutes(5).contains(&stats.oldest)), (7, true), "{stats:?}");
    let rows = f.outbox().await;
    assert!(f.acknowledge("a", rows[0].event.shard, 3).await);
    let stats = f.store.outbox.stats().await.unwrap();
    assert_eq!((stats.depth, minutes(0).contains(&stats.oldest)), (4, true), "what is published has no age: {stats:?}");
    assert_eq!(f.count("outbox_waiting").await, 4, "the view says the same");
    f.sql("DELETE FROM outbox_event").await;
    let none = f.store.outbox.stats().await.unwrap();
    assert_eq!((none.depth, none.oldest), (0, Duration::ZERO));
}

pub async fn a_single_process_leads_every_shard_alone(f: Fixture) {
    let Leadership { shards, others_write } = f.store.outbox.lead("a", &Role::ALL, &Renewal::default()).await.unwrap();
    assert_eq!(shards.iter().map(|led| led.shard).collect::<Vec<_>>(), [0, 1, 2, 3, 16, 17, 18, 19]);
    assert!(shards.iter().all(|led| led.acknowledged == 0));
    assert!(!others_write);
    let events = of_one_key(3);
    commit(&f.store, &events).await;
    assert!(f.acknowledge("a", events[0].shard, 2).await);
    let led = f.store.outbox.lead("a", &Role::ALL, &Renewal::default()).await.unwrap().shards;
    let stored = |led: &minishop_store::Led| if led.shard == events[0].shard { 2 } else { 0 };
    assert!(led.iter().all(|led| led.acknowledged == stored(led)), "{led:?}");
    f.store.outbox.release("a").await.unwrap();
}

pub async fn the_space_of_removed_rows_can_be_freed(f: Fixture) {
    f.accept(&orders("a", 0..10)).await;
    assert!(f.store.outbox.vacuum().await.unwrap());
    assert_eq!(f.pending().await.len(), 10);
}
