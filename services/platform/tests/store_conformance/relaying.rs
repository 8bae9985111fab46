//! The outbox, as the relay uses it.

use std::time::Duration;

use bytes::Bytes;
use minishop_platform::store::{Journal, NewEvent, Role};

use crate::support::{Fixture, event_id, order, order_of, orders};

pub async fn pending_rows_come_in_order_of_id_within_each_shard(f: Fixture) {
    let batch: Vec<_> = (0..200).map(|n| order_of("a", &format!("k{n:03}"), &format!("c{n}"))).collect();
    f.accept(&batch).await;
    let all = f.pending().await;
    assert_eq!(all.len(), 200);
    assert!(all.is_sorted_by_key(|row| (row.event.shard, row.id)));
    let shards: Vec<i16> = vec![all[0].event.shard, all[199].event.shard];
    let first = f.store.outbox.pending(&shards, &[], 3).await.unwrap();
    let expected: Vec<_> =
        shards.iter().flat_map(|shard| all.iter().filter(move |row| row.event.shard == *shard).take(3).cloned()).collect();
    assert_eq!(first, expected);
    assert!(f.store.outbox.pending(&[], &[], 10).await.unwrap().is_empty());
    let held: Vec<i64> = first.iter().map(|row| row.id).collect();
    let next = f.store.outbox.pending(&shards, &held, 3).await.unwrap();
    let behind = |shard: &i16| {
        all.iter()
            .filter({
                let shard = *shard;
                move |row| row.event.shard == shard
            })
            .skip(3)
            .take(3)
    };
    assert_eq!(next, shards.iter().flat_map(behind).cloned().collect::<Vec<_>>(), "what is in hand makes room for what waits");
}

pub async fn rows_survive_the_outbox_byte_for_byte(f: Fixture) {
    let bytes: Bytes = (0..=255).collect();
    let dead = NewEvent {
        shard: 31,
        event_id: event_id(),
        topic: "orders.created.dlq".into(),
        record_key: bytes.clone(),
        order_id: None,
        order_version: None,
        payload: Some(Bytes::from(vec![0xff; 300_000])),
        headers: bytes,
    };
    let tombstone = NewEvent { event_id: event_id(), payload: None, ..dead.clone() };
    let mut settlement = f.store.inbox.begin("w").await.unwrap();
    let journal = Journal { events: vec![dead.clone(), tombstone.clone()], ..Journal::default() };
    settlement.record(&journal).await.unwrap();
    settlement.commit().await.unwrap();
    assert_eq!(f.pending().await.into_iter().map(|row| row.event).collect::<Vec<_>>(), [dead, tombstone]);
}

pub async fn deleted_rows_are_gone_and_the_rest_stays(f: Fixture) {
    f.accept(&orders("a", 0..10)).await;
    let rows = f.pending().await;
    let delivered: Vec<_> = rows.iter().take(4).map(|row| (row.event.shard, row.id)).collect();
    f.store.outbox.delete(&delivered).await.unwrap();
    f.store.outbox.delete(&delivered).await.unwrap();
    f.store.outbox.delete(&[]).await.unwrap();
    assert_eq!(f.pending().await, rows[4..]);
    f.accept(&[order("a", "later")]).await;
    assert!(f.pending().await.iter().all(|row| !delivered.contains(&(row.event.shard, row.id))), "an id came back");
}

pub async fn aged_rows_are_only_the_old_ones(f: Fixture) {
    f.accept(&orders("a", 0..2)).await;
    f.age(Duration::from_mins(1)).await;
    f.accept(&orders("b", 0..2)).await;
    let all: Vec<i16> = (0..32).collect();
    let aged = f.store.outbox.aged(&all, Duration::from_secs(30), 100).await.unwrap();
    assert_eq!(aged, f.pending().await[..2]);
    assert_eq!(f.store.outbox.aged(&all, Duration::from_secs(30), 1).await.unwrap().len(), 1);
    assert!(f.store.outbox.aged(&[31], Duration::from_secs(30), 1).await.unwrap().is_empty());
}

pub async fn statistics_count_what_waits_and_its_age(f: Fixture) {
    let none = f.store.outbox.stats().await.unwrap();
    assert_eq!((none.depth, none.oldest), (0, Duration::ZERO));
    f.accept(&orders("a", 0..3)).await;
    f.age(Duration::from_mins(5)).await;
    let stats = f.store.outbox.stats().await.unwrap();
    assert_eq!(stats.depth, 3);
    assert!((Duration::from_mins(5)..Duration::from_mins(6)).contains(&stats.oldest), "{stats:?}");
}

pub async fn a_single_process_leads_every_shard_alone(f: Fixture) {
    let leads = f.store.outbox.lead("a", &[Role::Api, Role::Worker]).await.unwrap();
    assert_eq!(leads.shards, (0..32).collect::<Vec<_>>());
    assert_eq!(leads.alone_in, [Role::Api, Role::Worker]);
    f.store.outbox.release("a").await.unwrap();
}
