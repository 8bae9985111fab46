//! What a relay has published is acknowledged and removed.

use minishop_core::ids::EventId;
use minishop_store::Acknowledged;
use minishop_testkit::rows::{event_id, order, orders};

use crate::relaying::{by_shard, commit, of_many, of_one_key};
use crate::support::Fixture;

pub async fn what_is_published_goes_and_the_last_of_it_stays(f: Fixture) {
    f.accept(&orders("a", 0..10)).await;
    let rows = f.outbox().await;
    let shard = rows[0].event.shard;
    assert!(f.acknowledge("a", shard, 4).await);
    assert_eq!((f.outbox().await, f.pending().await), (rows[3..].to_vec(), rows[4..].to_vec()));
    assert!(f.acknowledge("a", shard, 5).await);
    assert!(f.acknowledge("a", shard, 10).await);
    assert_eq!((f.outbox().await, f.pending().await), (rows[9..].to_vec(), Vec::new()));
    assert_eq!(f.store.outbox.stats().await.unwrap().depth, 0);
    let next = order("a", "later");
    let number = f.store.orders.intake().await.unwrap().accept(std::slice::from_ref(&next)).await.unwrap()[&next.head.order_id];
    assert_eq!(number, 11, "no number comes twice");
    assert!(f.acknowledge("a", shard, 11).await);
    assert_eq!(f.count("outbox_event").await, 1);
}

pub async fn several_shards_are_acknowledged_at_once(f: Fixture) {
    f.accept(&of_many("a", 100)).await;
    let mut published = Vec::new();
    for (shard, rows) in by_shard(&f.outbox().await) {
        published.push(f.published("a", shard, i64::try_from(rows.len()).unwrap()).await);
    }
    assert!(f.store.outbox.acknowledge("a", &published).await.unwrap());
    assert_eq!((f.count("outbox_event").await, f.pending().await), (4, Vec::new()));
    assert!(f.store.outbox.acknowledge("a", &[]).await.unwrap());
}

pub async fn what_contradicts_the_store_is_not_acknowledged_and_nothing_is_changed(f: Fixture) {
    f.accept(&of_many("a", 100)).await;
    let done = f.published("a", 0, 5).await;
    assert!(f.store.outbox.acknowledge("a", std::slice::from_ref(&done)).await.unwrap());
    let next = f.published("a", 0, 9).await;
    let other = f.published("a", 1, 3).await;
    let before = (f.outbox().await, f.acknowledged().await);
    let refused = async |asked: Acknowledged, why: &str| {
        for all in [vec![asked.clone()], vec![other.clone(), asked.clone()], vec![asked.clone(), other.clone()]] {
            assert!(!f.store.outbox.acknowledge("a", &all).await.unwrap(), "{why}");
            assert_eq!((f.outbox().await, f.acknowledged().await), before, "{why}");
        }
    };
    let with = |low: i64, change: &dyn Fn(&mut Vec<EventId>)| {
        let mut asked = Acknowledged { low, ..next.clone() };
        change(&mut asked.events);
        asked
    };
    refused(done.clone(), "it was done before").await;
    refused(with(4, &|events| events.insert(0, done.events[4])), "less is stored").await;
    refused(with(6, &|events| events.retain(|id| *id != next.events[0])), "more is stored").await;
    refused(with(5, &|events| events[3] = event_id()), "another event bears the last number").await;
    refused(with(5, &|events| events[1] = event_id()), "another event bears a number between").await;
    refused(with(5, &|events| events.swap(0, 1)), "two events bear each other's number").await;
    refused(with(5, &|events| events.retain(|id| *id != next.events[1])), "the events are fewer").await;
    refused(with(5, &|events| events.extend((0..1_000).map(|_| event_id()))), "there are no such numbers").await;
    refused(Acknowledged { shard: 7, ..next.clone() }, "there is no such shard").await;
    assert!(f.store.outbox.acknowledge("a", &[next, other]).await.unwrap(), "and what is right is taken");
}

pub async fn nothing_is_acknowledged_over_rows_that_are_gone(f: Fixture) {
    f.accept(&orders("a", 0..10)).await;
    let shard = f.outbox().await[0].event.shard;
    let published = f.published("a", shard, 7).await;
    f.sql("DELETE FROM outbox_event WHERE number = 3").await;
    let before = (f.outbox().await, f.acknowledged().await);
    assert!(!f.store.outbox.acknowledge("a", &[published]).await.unwrap());
    assert_eq!((f.outbox().await, f.acknowledged().await), before);
}

pub async fn numbers_go_on_behind_what_is_published_when_somebody_has_emptied_the_table(f: Fixture) {
    let events = of_one_key(8);
    commit(&f.store, &events).await;
    assert!(f.acknowledge("a", events[0].shard, 6).await);
    f.sql("DELETE FROM outbox_event").await;
    assert_eq!(commit(&f.store, &of_one_key(2)).await, [7, 8]);
    let order = order("a", "k");
    assert_eq!(
        f.store.orders.intake().await.unwrap().accept(std::slice::from_ref(&order)).await.unwrap()[&order.head.order_id],
        1
    );
    assert!(f.acknowledge("a", events[0].shard, 8).await, "the last published row need not be there");
}
