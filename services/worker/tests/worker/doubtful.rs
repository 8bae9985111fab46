//! Commits of the lot whose answer is lost: whatever the store reports, they happened.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use minishop_core::idempotency::IdempotencyKey;
use minishop_core::ids::{ClientId, EventId, OrderId};
use minishop_store::{
    AdoptedOrder, Claim, Claimed, ConsumerTx, Gate, Identity, InboxEntry, Journal, KnownOrder, Lease, Lot, LotTx, MadeDue,
    Release, Result, Store, StoreError, Transition,
};
use minishop_worker::WorkerShared;
use minishop_worker::handlers::Handled;
use minishop_worker::upcast::{Step, Versions};

use crate::handler::{Reaction, done, failed, scripted};
use crate::lot_fixes::{fixed_reader, misspelt, redrive};
use crate::records::created;
use crate::shop::Shop;

/// A lot with one commit that happens but returns an error.
#[derive(Debug)]
struct Doubtful {
    lot: Arc<dyn Lot>,
    /// How many commits are answered before that.
    left: Arc<AtomicUsize>,
    lost: fn() -> StoreError,
}

struct Cut {
    tx: Box<dyn LotTx>,
    left: Arc<AtomicUsize>,
    lost: fn() -> StoreError,
}

fn unknown() -> StoreError {
    StoreError::Unknown { operation: "inbox.commit", source: anyhow::anyhow!("the connection was cut") }
}

/// An error that no store should return for a commit that happened; one did.
fn refused() -> StoreError {
    StoreError::retry("inbox.commit", anyhow::anyhow!("terminating connection due to administrator command"))
}

#[async_trait]
impl Lot for Doubtful {
    async fn oldest_held(&self, consumer: &str, types: &[String]) -> Result<Option<Duration>> {
        self.lot.oldest_held(consumer, types).await
    }

    async fn claim(&self, consumer: &str, claim: &Claim<'_>) -> Result<Vec<Claimed>> {
        self.lot.claim(consumer, claim).await
    }

    async fn next_due(&self, consumer: &str, types: &[String]) -> Result<Option<Duration>> {
        self.lot.next_due(consumer, types).await
    }

    async fn make_due(&self, consumer: &str, types: &[String], after: Option<&Bytes>) -> Result<MadeDue> {
        self.lot.make_due(consumer, types, after).await
    }

    async fn begin(&self, consumer: &str) -> Result<Box<dyn LotTx>> {
        let tx = self.lot.begin(consumer).await?;
        Ok(Box::new(Cut { tx, left: self.left.clone(), lost: self.lost }))
    }
}

#[async_trait]
impl ConsumerTx for Cut {
    async fn gate(&mut self, entries: &[InboxEntry]) -> Result<Gate> {
        self.tx.gate(entries).await
    }

    async fn known_digests(&mut self, ids: &[EventId]) -> Result<HashMap<EventId, [u8; 32]>> {
        self.tx.known_digests(ids).await
    }

    async fn parked_keys(&mut self, keys: &[Bytes]) -> Result<HashSet<Bytes>> {
        self.tx.parked_keys(keys).await
    }

    async fn orders(&mut self, ids: &[OrderId], keys: &[(ClientId, IdempotencyKey)]) -> Result<Vec<KnownOrder>> {
        self.tx.orders(ids, keys).await
    }

    async fn adopt(&mut self, orders: &[AdoptedOrder]) -> Result<HashSet<OrderId>> {
        self.tx.adopt(orders).await
    }

    async fn apply(&mut self, transitions: &[Transition]) -> Result<HashSet<OrderId>> {
        self.tx.apply(transitions).await
    }

    async fn record(&mut self, journal: &Journal) -> Result<Vec<i64>> {
        self.tx.record(journal).await
    }

    async fn commit(self: Box<Self>) -> Result<()> {
        self.tx.commit().await?;
        let counted = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if counted == Ok(1) { Err((self.lost)()) } else { Ok(()) }
    }
}

#[async_trait]
impl LotTx for Cut {
    async fn drain(&mut self, leases: &[Lease]) -> Result<HashSet<i64>> {
        self.tx.drain(leases).await
    }

    async fn release(&mut self, rows: &[Release]) -> Result<HashSet<i64>> {
        self.tx.release(rows).await
    }

    async fn identify(&mut self, rows: &[Identity]) -> Result<HashSet<i64>> {
        self.tx.identify(rows).await
    }
}

pub async fn a_commit_of_the_lot_whose_answer_is_lost_loses_and_doubles_nothing(shop: Shop) {
    let handler = scripted(|delivery, before| match (delivery.record_key.as_ref(), before) {
        (b"refused", _) => Reaction::Say(Handled::Refused { message: "the endpoint answered 422".to_owned() }),
        (_, 0) => failed(),
        _ => done(),
    });
    let mut letters = 0;
    for lost in [unknown, refused] {
        for nth in 1..=8 {
            let case = format!("commit {nth}, {}", lost());
            // Refused at first, it decodes now and passes the gate only in the lot.
            let restored = misspelt(created());
            shop.step(&[restored.record()]).await;
            letters += 1;
            redrive(&shop).await;
            let first = created();
            let (second, refused) = (first.same_customer(), created().keyed(Some(b"refused")));
            let store = Store {
                lot: Arc::new(Doubtful { lot: shop.store.lot.clone(), left: Arc::new(AtomicUsize::new(nth)), lost }),
                ..shop.store.clone()
            };
            let setup = WorkerShared::new(handler.place(), Versions::new(vec![Step::Same], fixed_reader));
            let mut worker = shop.hands_on(store, setup, 8);
            worker.stream(&[first.record(), second.record(), refused.record()]).await;
            letters += 1;
            for _ in 0..12 {
                // The error comes once; the next step retries.
                let _ = worker.lot.step().await;
                shop.end_leases().await;
                shop.age(Duration::from_hours(12)).await;
            }
            for event in [&restored, &first, &second] {
                let order = shop.order(event.order_id()).await.unwrap();
                assert_eq!((&*order.status, order.version), ("processed", 2), "{case}");
            }
            let processed = shop.published("orders.processed").await;
            let of = |event: &crate::records::Sent| {
                processed.iter().filter(|row| row.event.order_id == Some(event.order_id())).count()
            };
            assert_eq!([&restored, &first, &second, &refused].map(of), [1, 1, 1, 0], "{case}");
            let parked = shop.parked().await;
            assert_eq!((parked.len(), &*parked[0].state), (1, "dead"), "{case}: {parked:?}");
            assert_eq!(shop.published("orders.created.dlq").await.len(), letters, "{case}");
            shop.sql("DELETE FROM parked").await;
        }
    }
}
