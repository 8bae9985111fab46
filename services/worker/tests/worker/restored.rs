//! A store that is put back to an earlier state while workers run on it, as at a fail-over to a replica that lagged.

use minishop_store::{StoreError, Why};
use minishop_testkit::wait::becomes;

use crate::consuming::{Worker, until_processed, worker};
use crate::log::{Log, log};
use crate::records::{Sent, created};
use crate::shop::Shop;

/// Saves what the store holds.
async fn keep(shop: &Shop) {
    shop.sql("CREATE TABLE kept_orders AS SELECT order_id FROM orders").await;
    shop.sql("CREATE TABLE kept_events AS SELECT event_id FROM inbox").await;
    shop.sql("CREATE TABLE kept_offsets AS SELECT partition, next_offset FROM consumed").await;
}

/// Puts the store back to what was saved, in one transaction.
async fn put_back(shop: &Shop) {
    shop.sql(
        "BEGIN;
        DELETE FROM timeline WHERE order_id NOT IN (SELECT order_id FROM kept_orders);
        DELETE FROM orders WHERE order_id NOT IN (SELECT order_id FROM kept_orders);
        DELETE FROM inbox WHERE event_id NOT IN (SELECT event_id FROM kept_events);
        DELETE FROM consumed WHERE partition NOT IN (SELECT partition FROM kept_offsets);
        UPDATE consumed SET next_offset = (SELECT k.next_offset FROM kept_offsets k WHERE k.partition = consumed.partition);
        COMMIT",
    )
    .await;
}

/// Sends events and waits until this many orders are processed, and nothing waits to be published.
async fn settle(shop: &Shop, log: &Log, events: &[Sent], processed: i64) {
    log.send_events(events).await;
    until_processed(shop, processed).await;
    becomes("events to be published", async || shop.published(&log.topic("processed")).await.len(), 0).await;
}

fn behind(workers: &[Worker]) -> u64 {
    workers.iter().map(|worker| worker.metric("worker_store_behind_group_total")).sum()
}

pub async fn a_store_that_goes_back_under_a_running_worker_is_read_again_before_anything_new_is_settled(shop: Shop) {
    let log = log(&shop).await;
    let running = worker(&shop.store, &log, "running");
    let first: Vec<Sent> = (0..60).map(|_| created()).collect();
    settle(&shop, &log, &first, 60).await;
    keep(&shop).await;
    let lost: Vec<Sent> = first.iter().map(Sent::same_customer).collect();
    settle(&shop, &log, &lost, 120).await;
    put_back(&shop).await;
    let after: Vec<Sent> = first.iter().map(Sent::same_customer).collect();
    settle(&shop, &log, &after, 180).await;
    let offsets = shop.rows::<(i32, i64)>("SELECT partition, next_offset FROM consumed ORDER BY partition").await;
    let (ends, _) = log.ends_and_offsets().await;
    assert_eq!(offsets.into_iter().map(|(_, next)| next).collect::<Vec<_>>(), ends);
    // Each customer's orders are processed in the order in which they were announced.
    for ((one, two), three) in first.iter().zip(&lost).zip(&after) {
        let mut at = Vec::new();
        for event in [one, two, three] {
            at.push(shop.place_in_timeline(event.order_id()).await);
        }
        assert!(at.is_sorted(), "{at:?}");
    }
    assert_eq!(running.metric("worker_store_behind_group_total"), 4, "each partition raises the alarm once");
    assert_eq!(shop.parked().await.len(), 0);
    running.drain().await;
    // A later worker finds nothing more to report.
    let later = worker(&shop.store, &log, "later");
    settle(&shop, &log, &[created()], 181).await;
    assert_eq!(later.metric("worker_store_behind_group_total"), 0);
    later.drain().await;
}

pub async fn a_store_that_goes_back_is_found_out_also_where_nothing_new_comes(shop: Shop) {
    let log = log(&shop).await;
    let first = worker(&shop.store, &log, "first");
    let events: Vec<Sent> = (0..80).map(|_| created()).collect();
    settle(&shop, &log, &events[..40], 40).await;
    let second = worker(&shop.store, &log, "second");
    let workers = [first, second];
    let share = async || workers.iter().map(Worker::partitions).collect::<Vec<_>>();
    becomes("partitions of each", share, [2, 2]).await;
    keep(&shop).await;
    settle(&shop, &log, &events[40..], 80).await;
    put_back(&shop).await;
    assert_eq!(shop.count("orders").await, 40);
    until_processed(&shop, 80).await;
    becomes("partitions with an alarm", async || behind(&workers), 4).await;
    assert_eq!(shop.parked().await.len(), 0);
    for worker in workers {
        worker.drain().await;
    }
}

pub async fn a_store_that_stands_lower_than_it_was_seen_is_not_written_to(shop: Shop) {
    let (first, second) = (created(), created());
    let (first, second) = (first.record(), second.record());
    let seen = shop.processor.step(std::slice::from_ref(&first), &[]).await.unwrap();
    shop.processor.step(std::slice::from_ref(&first), &seen).await.unwrap();
    shop.sql("UPDATE consumed SET next_offset = next_offset - 1").await;
    let before = shop.snapshot().await;
    let stands = shop.store.reads.positions("g").await.unwrap();
    for lower in [stands, Vec::new()] {
        let refused = shop.processor.step(std::slice::from_ref(&second), &seen).await.unwrap_err();
        let StoreError::Retry { why: Why::WentBack(at), .. } = &refused else { panic!("{refused:?}") };
        assert_eq!((at.len(), at[0].next_offset), (1, lower.first().map_or(0, |at| at.next_offset)));
        assert_eq!(shop.snapshot().await, before, "nothing is written");
        assert_eq!(shop.store.reads.positions("g").await.unwrap(), lower);
        shop.sql("DELETE FROM consumed").await;
    }
    shop.processor.step(&[first, second], &[]).await.unwrap();
    assert_eq!(shop.events("processed"), 2);
}
