//! Accepting and reading orders.

use std::collections::{HashMap, HashSet};

use futures::future::join_all;
use minishop_core::ids::OrderId;
use minishop_core::order::Status;
use minishop_store::{ListQuery, NewOrder, Store, StoreError};
use minishop_testkit::rows::{client, key, order, order_of, orders, too_large};

use crate::support::{Fixture, entry, list_of, processed};

async fn accept(store: &Store, batch: &[NewOrder]) -> HashMap<OrderId, i64> {
    store.orders.intake().await.unwrap().accept(batch).await.unwrap()
}

pub async fn same_key_in_concurrent_batches_makes_one_order_and_one_event(f: Fixture) {
    let batches: Vec<_> = (0..8).map(|_| orders("a", 0..20)).collect();
    let made: Vec<_> = join_all(batches.iter().map(|batch| accept(&f.store, batch))).await;
    assert_eq!(made.iter().map(HashMap::len).sum::<usize>(), 20);
    assert_eq!(f.count("orders").await, 20);
    let announced: HashSet<_> = f.pending().await.into_iter().filter_map(|row| row.event.order_id).collect();
    assert_eq!(announced, made.iter().flat_map(HashMap::keys).copied().collect());
    assert_eq!(f.count("outbox_event").await, 20);
}

pub async fn overlapping_sorted_batches_never_deadlock(f: Fixture) {
    let writer = async |first: usize| {
        let mut intake = f.store.orders.intake().await.unwrap();
        let mut made = 0;
        for round in 0..20 {
            let start = (first * 7 + round * 13) % 150;
            made += intake.accept(&orders("a", start..start + 50)).await.unwrap().len();
        }
        made
    };
    let made: usize = join_all((0..4).map(writer)).await.into_iter().sum();
    assert_eq!(i64::try_from(made).unwrap(), f.count("orders").await);
}

pub async fn numbers_follow_the_order_of_a_batch(f: Fixture) {
    let batch = orders("a", 0..100);
    let made = accept(&f.store, &batch).await;
    let numbers: Vec<_> = batch.iter().map(|order| made[&order.head.order_id]).collect();
    assert_eq!(numbers, (1..=100).collect::<Vec<_>>());
    let places: HashMap<_, _> = f.pending().await.into_iter().map(|row| (row.event.order_id.unwrap(), row.number)).collect();
    assert_eq!(places, made);
}

pub async fn a_batch_of_every_size_is_complete(f: Fixture) {
    let mut intake = f.store.orders.intake().await.unwrap();
    for size in [0, 1, 3, 17, 64, 65, 256] {
        let batch = orders(&format!("client-{size}"), 0..size);
        assert_eq!(intake.accept(&batch).await.unwrap().len(), size);
    }
    assert_eq!(f.count("outbox_event").await, 1 + 3 + 17 + 64 + 65 + 256);
}

pub async fn a_batch_run_again_after_an_unknown_outcome_changes_nothing(f: Fixture) {
    let batch = orders("a", 0..5);
    assert_eq!(accept(&f.store, &batch).await.len(), 5);
    assert_eq!(accept(&f.store, &batch).await, HashMap::new());
    let keys: Vec<_> = batch.iter().map(|order| (order.head.client_id.clone(), order.head.key.clone())).collect();
    let found: HashSet<_> = f.store.orders.by_keys(&keys).await.unwrap().into_iter().map(|record| record.order_id).collect();
    assert_eq!(found, batch.iter().map(|order| order.head.order_id).collect());
    assert_eq!(f.count("outbox_event").await, 5);
}

pub async fn new_orders_beside_known_keys_are_accepted_whether_their_events_are_brief_or_whole(f: Fixture) {
    let mut intake = f.store.orders.intake().await.unwrap();
    let mut rows: Vec<(i16, i64)> = Vec::new();
    for round in 0..8 {
        // Half of each batch has keys of the batch before.
        let mut batch: Vec<NewOrder> = orders("a", round * 10..round * 10 + 20);
        if round % 3 == 0 {
            for order in &mut batch {
                order.event.brief = None;
            }
        }
        let made = intake.accept(&batch).await.unwrap();
        let new = &batch[if round == 0 { 0 } else { 10 }..];
        assert_eq!(made.keys().copied().collect::<HashSet<_>>(), new.iter().map(|order| order.head.order_id).collect());
        rows.extend(new.iter().map(|order| (order.event.shard, made[&order.head.order_id])));
    }
    assert_eq!(rows, (1..=90).map(|number| (rows[0].0, number)).collect::<Vec<_>>(), "in the order of the batches, gapless");
    assert_eq!(f.count("orders").await, 90);
}

pub async fn a_replay_is_answered_from_the_first_record(f: Fixture) {
    let first = order("a", "k1");
    f.accept(std::slice::from_ref(&first)).await;
    assert!(accept(&f.store, &[order("a", "k1")]).await.is_empty());
    let asked = [(client("a"), key("k1")), (client("b"), key("k1")), (client("a"), key("absent"))];
    let records = f.store.orders.by_keys(&asked).await.unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].order_id, first.head.order_id);
    assert_eq!(records[0].fingerprint, first.fingerprint);
    assert_eq!((records[0].total_minor, records[0].currency.as_deref()), (2100, Some("EUR")));
}

pub async fn a_row_that_cannot_be_written_fails_its_batch_and_leaves_nothing(f: Fixture) {
    let mut batch = orders("a", 0..3);
    batch[1].event = too_large(batch[1].event.clone());
    let mut intake = f.store.orders.intake().await.unwrap();
    assert!(matches!(intake.accept(&batch).await, Err(StoreError::Fail { .. })));
    assert_eq!((f.count("orders").await, f.count("outbox_event").await), (0, 0));
    assert_eq!(intake.accept(&batch[..1]).await.unwrap().len(), 1, "the connection goes on");
}

pub async fn an_acknowledged_order_is_read_at_once_by_its_client_and_by_no_other(f: Fixture) {
    let made = order("a", "k1");
    f.accept(std::slice::from_ref(&made)).await;
    let row = f.get(&made).await.expect("acknowledged");
    assert_eq!((row.status, row.version, row.head.total_minor), (Status::Created, 1, 2100));
    assert_eq!(
        (row.head.client_id, row.head.customer_id, row.head.created_at),
        (client("a"), "c1".to_owned(), made.head.created_at)
    );
    let items = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(items(&row.items), items(&made.items));
    assert_eq!(row.head.correlation_id, made.head.correlation_id);
    assert_eq!(f.store.reads.order(&client("b"), made.head.order_id).await.unwrap(), None);
    assert!(f.store.reads.orders(&list_of("b")).await.unwrap().is_empty());
}

pub async fn lists_are_keyset_pages_newest_first(f: Fixture) {
    let batch = orders("a", 0..25);
    f.accept(&batch).await;
    f.accept(&orders("b", 0..5)).await;
    let mut seen = Vec::new();
    let mut query = ListQuery { limit: 10, ..list_of("a") };
    loop {
        let page = f.store.reads.orders(&query).await.unwrap();
        assert!(page.len() <= 10);
        let Some(last) = page.last() else { break };
        query.before = Some(last.head.order_id);
        seen.extend(page.into_iter().map(|row| row.head.order_id));
    }
    assert_eq!(seen, batch.iter().rev().map(|order| order.head.order_id).collect::<Vec<_>>());
}

pub async fn lists_filter_by_customer_and_status(f: Fixture) {
    let batch = [order_of("a", "k1", "c1"), order_of("a", "k2", "c2"), order_of("a", "k3", "c1")];
    f.accept(&batch).await;
    let mut settlement = f.store.inbox.begin("w").await.unwrap();
    settlement.gate(&[entry(batch[2].event.event_id)]).await.unwrap();
    settlement.apply(&[processed(&batch[2])]).await.unwrap();
    settlement.commit().await.unwrap();
    let list = async |customer: Option<&str>, status| {
        let query = ListQuery { customer_id: customer.map(str::to_owned), status, ..list_of("a") };
        f.store.reads.orders(&query).await.unwrap().into_iter().map(|row| row.head.order_id).collect::<Vec<_>>()
    };
    let [first, second, third] = batch.map(|order| order.head.order_id);
    assert_eq!(list(Some("c1"), None).await, [third, first]);
    assert_eq!(list(None, Some(Status::Created)).await, [second, first]);
    assert_eq!(list(Some("c1"), Some(Status::Processed)).await, [third]);
    assert_eq!(list(Some("c3"), None).await, []);
}

pub async fn what_a_list_looks_at_is_bounded_by_its_nth_order(f: Fixture) {
    let batch = orders("a", 0..10);
    f.accept(&batch).await;
    f.accept(&orders("b", 0..5)).await;
    f.accept(&[order_of("a", "other", "c9")]).await;
    let newest_first: Vec<_> = batch.iter().rev().map(|order| order.head.order_id).collect();
    let of_customer = ListQuery { customer_id: Some(batch[0].head.customer_id.clone()), ..list_of("a") };
    let status = ListQuery { status: Some(Status::Failed), ..of_customer.clone() };
    for (n, wanted) in [(1, Some(newest_first[0])), (4, Some(newest_first[3])), (10, Some(newest_first[9])), (11, None)] {
        assert_eq!(f.store.reads.nth_order(&of_customer, n).await.unwrap(), wanted, "{n}");
        assert_eq!(f.store.reads.nth_order(&status, n).await.unwrap(), wanted, "{n}: whatever its status");
    }
    let page = ListQuery { before: Some(newest_first[1]), ..list_of("a") };
    assert_eq!(f.store.reads.nth_order(&page, 2).await.unwrap(), Some(newest_first[3]), "counted from the page's beginning");
    let bounded = ListQuery { down_to: Some(newest_first[3]), ..of_customer };
    let ids =
        async |query| f.store.reads.orders(&query).await.unwrap().into_iter().map(|row| row.head.order_id).collect::<Vec<_>>();
    assert_eq!(ids(bounded.clone()).await, newest_first[..4]);
    assert_eq!(ids(ListQuery { status: Some(Status::Created), ..bounded.clone() }).await, newest_first[..4]);
    assert_eq!(ids(ListQuery { status: Some(Status::Failed), ..bounded }).await, []);
}

pub async fn a_store_that_works_answers_a_ping(f: Fixture) {
    f.store.orders.ping().await.unwrap();
}
