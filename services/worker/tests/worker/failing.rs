//! Stores that refuse values, and broken stores.

use minishop_store::StoreError;

use crate::records::{Sent, created};
use crate::shop::Shop;

pub async fn an_event_that_the_store_cannot_hold_is_a_dead_letter_and_its_neighbours_flow(shop: Shop) {
    let events: Vec<_> = (0..37).map(|_| created()).collect();
    // The clock stands still, so that the second adoption, wherever it comes, violates this index.
    shop.sql("CREATE UNIQUE INDEX one_adoption_at_a_time ON timeline (at, kind) WHERE kind = 'adopted'").await;
    let mut known = Vec::new();
    for _ in 0..20 {
        known.push(created().accepted(&shop, "a").await);
    }
    let mut batch: Vec<_> = events.iter().take(1).chain(&known[..9]).map(Sent::record).collect();
    batch.push(events[1].record());
    batch.extend(known[9..].iter().map(Sent::record));
    shop.step(&batch).await;
    assert_eq!((shop.events("processed"), shop.events("dead")), (21, 1), "the guilty one stands alone");
    assert_eq!(shop.order(events[1].order_id()).await, None);
    let parked = shop.parked().await;
    assert_eq!((parked.len(), parked[0].error_code.as_deref()), (1, Some("DATA_INVALID")));
    assert_eq!(parked[0].raw_value.as_deref(), events[1].record().value.as_deref());
    let before = shop.snapshot().await;
    shop.step(&batch[10..]).await;
    let after = shop.snapshot().await;
    assert_eq!(after, before, "read again it is a dead letter still");
}

pub async fn a_database_in_disorder_makes_no_dead_letters(shop: Shop) {
    let batch: Vec<_> = (0..9).map(|_| created().record()).collect();
    for table in ["timeline", "inbox", "parked"] {
        shop.sql(&format!("ALTER TABLE {table} RENAME TO away")).await;
        let failed = shop.try_step(&batch).await;
        assert!(matches!(failed, Err(StoreError::Fail { .. })), "{table}: {failed:?}");
        shop.sql(&format!("ALTER TABLE away RENAME TO {table}")).await;
    }
    assert_eq!((shop.count("orders").await, shop.count("inbox").await, shop.count("outbox_event").await), (0, 0, 0));
    shop.step(&batch).await;
    assert_eq!((shop.events("processed"), shop.parked().await.len()), (9, 0), "in order again, all flow");
}

pub async fn nothing_is_counted_before_it_is_committed(shop: Shop) {
    let batch = [created().record(), created().with("/data/total", 22).record()];
    shop.sql("ALTER TABLE consumed RENAME TO away").await;
    assert!(shop.try_step(&batch).await.is_err());
    let counted = ["processed", "dead", "copy"].map(|outcome| shop.events(outcome));
    let samples =
        ["worker_created_to_processed_duration_seconds_count", "worker_batch_records_count"].map(|name| shop.metric(name));
    assert_eq!((counted, samples), ([0; 3], [0; 2]));
    shop.sql("ALTER TABLE away RENAME TO consumed").await;
    shop.step(&batch).await;
    assert_eq!(shop.metric("worker_created_to_processed_duration_seconds_count"), 1);
}
