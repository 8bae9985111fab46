//! All writers at once, as with two APIs and two workers: no two of their transactions deadlock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use minishop_core::operation::Kind;
use minishop_core::order::Status;
use minishop_core::parking::State;
use minishop_core::position::Position;
use minishop_core::timeline::NoteKind;
use minishop_store::{
    Claim, DeadLetterFilter, Journal, NewOrder, Note, ParkedEvent, Release, Result, Selection, Store, StoreError,
};
use minishop_testkit::database::Engine;
use minishop_testkit::lot::{operation, parked};
use minishop_testkit::rows::{now, order_of};

use crate::discarding::failed;
use crate::living::cancelled;
use crate::parking::LEASE;
use crate::support::{Fixture, adopted, entry, on, processed};

const ROUNDS: usize = 40;

/// One process's store, and the orders that all have made.
#[derive(Clone)]
struct Crowd {
    store: Store,
    made: Arc<Mutex<Vec<NewOrder>>>,
    n: usize,
}

/// Returns the value, or `None` after an error that the caller may retry; fails on any other error.
fn may_come_again<T: std::fmt::Debug>(outcome: Result<T>) -> Option<T> {
    match outcome {
        Ok(value) => Some(value),
        Err(error) => {
            assert!(matches!(error, StoreError::Retry { .. }), "{error:?}");
            None
        }
    }
}

/// Returns orders under keys that others use too.
fn batch(round: usize, n: usize, count: usize) -> Vec<NewOrder> {
    let start = (n * 7 + round * 13) % 30;
    (start..start + count).map(|k| order_of("a", &format!("k{}-{k:03}", round / 4), &format!("c{}", k % 9))).collect()
}

impl Crowd {
    /// Returns some of the newest orders.
    fn some(&self, count: usize) -> Vec<NewOrder> {
        let made = self.made.lock().unwrap();
        let from = made.len().saturating_sub(60 + rand::random_range(0..30));
        made.iter().skip(from).filter(|_| rand::random_ratio(1, 2)).take(count).cloned().collect()
    }

    async fn accept(&self) {
        let mut intake = self.store.orders.intake().await.unwrap();
        for round in 0..ROUNDS {
            let orders = batch(round, self.n, 20);
            let Some(new) = may_come_again(intake.accept(&orders).await) else { continue };
            self.made.lock().unwrap().extend(orders.into_iter().filter(|order| new.contains_key(&order.head.order_id)));
        }
    }

    async fn cancel(&self) {
        let mut cancels = self.store.orders.cancels().await.unwrap();
        let mut tried = 0;
        while tried < 3 * ROUNDS {
            for order in self.some(4) {
                may_come_again(cancels.cancel(&cancelled(&order), "{}").await);
                tried += 1;
            }
            // There may be no orders yet.
            tokio::task::yield_now().await;
        }
    }

    async fn settle(&self) {
        for round in 0..ROUNDS {
            // Some orders come by events before anybody has accepted them.
            let mut orders = self.some(15);
            orders.extend(batch(round + 1, self.n, 3));
            may_come_again(self.settle_once(&orders).await);
        }
    }

    async fn settle_once(&self, orders: &[NewOrder]) -> Result<()> {
        let mut tx = self.store.inbox.begin("worker").await?;
        let fresh = tx.gate(&orders.iter().map(|order| entry(order.event.event_id)).collect::<Vec<_>>()).await?.fresh;
        let orders: Vec<_> = orders.iter().filter(|order| fresh.contains(&order.event.event_id)).collect();
        tx.parked_keys(&orders.iter().map(|order| order.event.record_key.clone()).collect::<Vec<_>>()).await?;
        let (ids, keys): (Vec<_>, Vec<_>) =
            orders.iter().map(|order| (order.head.order_id, (order.head.client_id.clone(), order.head.key.clone()))).unzip();
        let known = tx.orders(&ids, &keys).await?;
        let unknown =
            |order: &&&NewOrder| !known.iter().any(|known| known.order_id == order.head.order_id || known.key == order.head.key);
        let adopt: Vec<_> = orders.iter().filter(unknown).map(|order| adopted(order)).collect();
        if tx.adopt(&adopt).await?.len() < adopt.len() {
            return Ok(());
        }
        let (dead, good): (Vec<_>, Vec<_>) = orders.into_iter().partition(|_| rand::random_ratio(1, 3));
        let transitions: Vec<_> = good.into_iter().map(processed).collect();
        let passed = tx.apply(&transitions).await?;
        let events = transitions.into_iter().filter(|t| passed.contains(&t.order_id)).map(|t| t.event).collect();
        let park = |order: &&NewOrder| ParkedEvent {
            event_id: order.event.event_id,
            order_id: Some(order.head.order_id),
            ..parked(&order.head.customer_id, if rand::random() { State::Dead } else { State::Retrying }, true)
        };
        let note = |order: &&NewOrder| Note {
            order_id: order.head.order_id,
            kind: NoteKind::Parked,
            at: now(),
            cause: order.event.event_id,
            detail: None,
        };
        let journal = Journal {
            events,
            parked: dead.iter().map(park).collect(),
            notes: dead.iter().map(note).collect(),
            positions: (0..4).map(|partition| Position { topic: "t".into(), partition, next_offset: 1 }).collect(),
            ..Journal::default()
        };
        tx.record(&journal).await?;
        tx.commit().await
    }

    async fn pass(&self) {
        let types = ["orders.created".to_owned()];
        for _ in 0..ROUNDS {
            let claim = Claim { types: &types, lease: LEASE, limit: 8 };
            let Some(rows) = may_come_again(self.store.lot.claim("worker", &claim).await) else { continue };
            let pass = async {
                let mut tx = self.store.lot.begin("worker").await?;
                let ids: Vec<_> = rows.iter().filter_map(|row| row.order_id).collect();
                tx.orders(&ids, &[]).await?;
                let (ended, again): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.lease.id % 3 > 0);
                let leases: Vec<_> = ended.iter().map(|row| row.lease).collect();
                tx.drain(&leases).await?;
                let again = again.into_iter().map(|row| Release {
                    lease: row.lease,
                    again_in: Some(Duration::ZERO),
                    uncounted: true,
                    unblocks: false,
                    failure: None,
                });
                tx.release(&again.collect::<Vec<_>>()).await?;
                let made: HashMap<_, _> =
                    self.made.lock().unwrap().iter().map(|order| (order.head.order_id, order.clone())).collect();
                let orders = ended.iter().filter_map(|row| made.get(&row.order_id?));
                let transitions: Vec<_> = orders.map(processed).collect();
                let passed = tx.apply(&transitions).await?;
                let events = transitions.into_iter().filter(|t| passed.contains(&t.order_id)).map(|t| t.event).collect();
                tx.record(&Journal { events, ..Journal::default() }).await?;
                tx.commit().await
            };
            may_come_again(pass.await);
        }
    }

    async fn repair(&self) {
        for round in 0..ROUNDS / 2 {
            let kind = if round.is_multiple_of(2) { Kind::Redrive } else { Kind::Discard };
            let all = Selection::Filter(DeadLetterFilter::default());
            may_come_again(self.store.operations.begin(&operation(kind, all)).await);
            may_come_again(self.repair_once().await);
        }
    }

    async fn repair_once(&self) -> Result<()> {
        let operations = &self.store.operations;
        for run in operations.claim(&format!("worker-{}", self.n), LEASE, 2).await? {
            if run.operation.kind == Kind::Redrive {
                operations.release(&run, 10, now()).await?;
            } else {
                for candidate in operations.discard_candidates(&run, 10).await? {
                    let made = self.made.lock().unwrap().clone();
                    let of = |order: &&NewOrder| {
                        candidate.order.as_ref().is_some_and(|known| known.order.head.order_id == order.head.order_id)
                    };
                    let change = made.iter().find(of).map(failed);
                    operations.discard(&run, &candidate, change.as_ref(), now()).await?;
                }
            }
            if let Some(operation) = operations.decide(&run).await? {
                operations.end(&run, &operation.tally, now()).await?;
            }
        }
        Ok(())
    }
}

/// Counts the deadlocks of the database. Connections report their statistics when they end.
async fn deadlocks(f: &Fixture) -> i64 {
    f.cut_stores().await;
    f.left_alone().await;
    f.count("pg_stat_database, generate_series(1, deadlocks) WHERE datname = current_database()").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_apis_and_two_workers_never_wait_for_each_other_in_a_ring() {
    on(Engine::Postgres, async |f: Fixture| {
        let made = Arc::default();
        let of = |n, store: Store| Crowd { store, made: Arc::clone(&made), n };
        let (one, two) = (of(0, f.open_again(false).await.unwrap()), of(1, f.open_again(false).await.unwrap()));
        let all = async |crowd: &Crowd| {
            futures::join!(crowd.accept(), crowd.cancel(), crowd.settle(), crowd.pass(), crowd.repair());
        };
        futures::join!(all(&one), all(&two));
        let statuses = [Status::Processed, Status::Cancelled, Status::Failed].map(Status::as_str);
        for status in statuses {
            assert!(f.count(&format!("orders WHERE status = '{status}'")).await > 0, "some orders are {status}");
        }
        assert!(f.count("orders WHERE adopted").await > 0, "some orders came by events");
        assert_eq!(
            f.count("orders").await,
            f.count("outbox_event WHERE shard < 16 AND order_version = 1").await + f.count("orders WHERE adopted").await,
            "every order that was accepted is announced once"
        );
        assert_eq!(deadlocks(&f).await, 0);
    })
    .await;
}
