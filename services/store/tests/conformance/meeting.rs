//! Transactions that meet at one order, in a forced sequence: whichever comes first, no key is blocked and none waits for ever.

use std::collections::HashSet;
use std::time::Duration;

use minishop_core::operation::Kind;
use minishop_core::order::Status;
use minishop_core::parking::State;
use minishop_store::{Claim, DeadLetterFilter, Failure, Journal, Lease, NewOrder, ParkedEvent, Release, Selection, StoreError};
use minishop_testkit::lot::{operation, parked};
use minishop_testkit::rows::{now, order};
use tokio::task::{AbortHandle, JoinSet};

use crate::discarding::failed;
use crate::living::cancelled;
use crate::parking::LEASE;
use crate::support::{Fixture, processed};

type Cancelled = Result<Option<i64>, StoreError>;

/// Returns the event of an order, which blocks its key, and another one behind it.
fn event_of(order: &NewOrder, state: State) -> [ParkedEvent; 2] {
    let event = ParkedEvent { order_id: Some(order.head.order_id), event_id: order.event.event_id, ..parked("c1", state, true) };
    [event, parked("c1", State::Waiting, true)]
}

/// Creates an order whose event is in the lot.
async fn with_event(f: &Fixture, state: State) -> NewOrder {
    let order = order("a", "k");
    f.accept(std::slice::from_ref(&order)).await;
    let mut settlement = f.store.inbox.begin("worker").await.unwrap();
    settlement.record(&Journal { parked: event_of(&order, state).into(), ..Journal::default() }).await.unwrap();
    settlement.commit().await.unwrap();
    order
}

async fn claim(f: &Fixture) -> Lease {
    let types = ["orders.created".to_owned()];
    let rows = f.store.lot.claim("worker", &Claim { types: &types, lease: LEASE, limit: 32 }).await.unwrap();
    assert_eq!(rows.len(), 1, "one event of the key is due: {rows:?}");
    rows[0].lease
}

fn given_up(lease: Lease) -> Release {
    let failure =
        Failure { class: "permanent", code: Some("WEBHOOK_REFUSED"), message: "422".to_owned(), fingerprint: [3; 32], at: now() };
    Release { lease, again_in: None, uncounted: false, unblocks: false, failure: Some(failure) }
}

/// Cancels an order in a task of its own, as the API does.
fn cancel(f: &Fixture, order: &NewOrder, tasks: &mut JoinSet<Cancelled>) -> AbortHandle {
    let (store, change) = (f.store.clone(), cancelled(order));
    tasks.spawn(async move { store.orders.cancels().await?.cancel(&change, "{}").await })
}

/// Checks that the order is cancelled, and that its event and the one behind it are claimed one after the other.
async fn flows(f: &Fixture, order: &NewOrder) {
    assert_eq!(f.get(order).await.unwrap().status, Status::Cancelled);
    for left in [1, 0] {
        let lease = claim(f).await;
        let mut tx = f.store.lot.begin("worker").await.unwrap();
        assert_eq!(tx.drain(&[lease]).await.unwrap(), HashSet::from([lease.id]));
        tx.commit().await.unwrap();
        assert_eq!(f.count("parked").await, left);
    }
}

pub async fn an_event_that_is_given_up_before_its_order_is_cancelled_is_due_again(f: Fixture) {
    let order = with_event(&f, State::Retrying).await;
    let lease = claim(&f).await;
    let mut tx = f.store.lot.begin("worker").await.unwrap();
    assert_eq!(tx.orders(&[order.head.order_id], &[]).await.unwrap()[0].status, Status::Created);
    let mut cancels = JoinSet::new();
    let task = cancel(&f, &order, &mut cancels);
    f.until_blocked(1, &task).await;
    assert_eq!(tx.release(&[given_up(lease)]).await.unwrap(), HashSet::from([lease.id]));
    tx.commit().await.unwrap();
    assert!(cancels.join_next().await.unwrap().unwrap().unwrap().is_some(), "the order was cancelled");
    flows(&f, &order).await;
}

pub async fn a_cancel_makes_an_event_due_that_waits_for_its_next_try(f: Fixture) {
    let order = with_event(&f, State::Retrying).await;
    let lease = claim(&f).await;
    let mut tx = f.store.lot.begin("worker").await.unwrap();
    let again_in = Some(Duration::from_hours(1));
    assert_eq!(tx.release(&[Release { again_in, ..given_up(lease) }]).await.unwrap(), HashSet::from([lease.id]));
    tx.commit().await.unwrap();
    let mut cancels = JoinSet::new();
    cancel(&f, &order, &mut cancels);
    assert!(cancels.join_next().await.unwrap().unwrap().unwrap().is_some());
    flows(&f, &order).await;
}

pub async fn a_pass_of_the_lot_that_meets_a_cancel_waits_and_sees_it(f: Fixture) {
    let order = with_event(&f, State::Retrying).await;
    claim(&f).await;
    let mut cancels = JoinSet::new();
    // The cancel has changed the order and cannot end: an open transaction has written the next row of its timeline.
    let told = "INSERT INTO timeline (order_id, version, kind, at, cause) SELECT order_id, 2, 'x', now(), order_id FROM orders";
    let held = f.hold_beside(told).await;
    let task = cancel(&f, &order, &mut cancels);
    f.until_blocked(1, &task).await;
    if held.is_none() {
        assert!(cancels.join_next().await.unwrap().unwrap().unwrap().is_some());
    }
    let (lot, id) = (f.store.lot.clone(), order.head.order_id);
    let mut looks = JoinSet::new();
    let task = looks.spawn(async move { lot.begin("worker").await.unwrap().orders(&[id], &[]).await.unwrap().remove(0).status });
    f.until_blocked(2, &task).await;
    if let Some(held) = held {
        held.release().await;
        assert!(cancels.join_next().await.unwrap().unwrap().unwrap().is_some());
    }
    assert_eq!(looks.join_next().await.unwrap().unwrap(), Status::Cancelled, "so it gives nothing up");
}

pub async fn an_order_that_is_processed_while_it_is_cancelled_is_processed(f: Fixture) {
    let order = with_event(&f, State::Retrying).await;
    let lease = claim(&f).await;
    let mut tx = f.store.lot.begin("worker").await.unwrap();
    tx.orders(&[order.head.order_id], &[]).await.unwrap();
    tx.drain(&[lease]).await.unwrap();
    let mut cancels = JoinSet::new();
    let task = cancel(&f, &order, &mut cancels);
    f.until_blocked(1, &task).await;
    assert_eq!(tx.apply(&[processed(&order)]).await.unwrap().len(), 1);
    tx.commit().await.unwrap();
    assert_eq!(cancels.join_next().await.unwrap().unwrap().unwrap(), None, "it came too late");
}

pub async fn a_discard_and_a_cancel_that_meet_do_not_wait_for_each_other(f: Fixture) {
    let order = with_event(&f, State::Dead).await;
    f.store.operations.begin(&operation(Kind::Discard, Selection::Filter(DeadLetterFilter::default()))).await.unwrap().unwrap();
    let run = f.store.operations.claim("w", LEASE, 1).await.unwrap().remove(0);
    let candidate = f.store.operations.discard_candidates(&run, 1).await.unwrap().remove(0);
    // Both wait for the order; the cancel came first and gets it.
    let held = f.hold_beside("SELECT order_id FROM orders FOR UPDATE").await;
    let (mut cancels, mut discards) = (JoinSet::new(), JoinSet::new());
    let task = cancel(&f, &order, &mut cancels);
    f.until_blocked(1, &task).await;
    if held.is_none() {
        assert!(cancels.join_next().await.unwrap().unwrap().unwrap().is_some());
    }
    let (operations, change) = (f.store.operations.clone(), failed(&order));
    let task = discards.spawn(async move { operations.discard(&run, &candidate, Some(&change), now()).await });
    f.until_blocked(2, &task).await;
    if let Some(held) = held {
        held.release().await;
        assert!(cancels.join_next().await.unwrap().unwrap().unwrap().is_some());
    }
    let changed = discards.join_next().await.unwrap().unwrap().unwrap().unwrap();
    assert_eq!(changed, None, "the order is cancelled and does not fail");
    flows(&f, &order).await;
}
