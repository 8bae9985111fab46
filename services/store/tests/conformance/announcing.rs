//! Orders whose announcement is lost.

use std::collections::HashSet;

use minishop_core::ids::OrderId;
use minishop_core::order::Status;
use minishop_store::{Announce, AnnouncedAgain, Left, LostAnnouncements, NewEvent, NewOrder};
use minishop_testkit::lot::operation;
use minishop_testkit::rows::{now, order, orders};

use crate::support::{Fixture, entry, processed};

fn ask(which: LostAnnouncements) -> Announce {
    let requested_by =
        operation(minishop_core::operation::Kind::Redrive, minishop_store::Selection::Ids(Vec::new())).requested_by;
    Announce { which, consumer: "worker".to_owned(), dry_run: false, requested_by, at: now() }
}

/// Announces; each order's event is the one with which it was accepted.
async fn announce(f: &Fixture, made: &[NewOrder], which: LostAnnouncements) -> AnnouncedAgain {
    let event = |id: OrderId| made.iter().find(|order| order.head.order_id == id).map(|order| order.event.clone());
    let ask = ask(which);
    let again = f
        .store
        .operations
        .announce(&ask, |origin| event(origin.order.head.order_id).ok_or_else(|| anyhow::anyhow!("an order of another test")));
    again.await.unwrap()
}

/// Accepts orders whose events are lost.
async fn lost(f: &Fixture, made: &[NewOrder]) {
    for batch in made.chunks(256) {
        f.accept(batch).await;
    }
    f.sql("DELETE FROM outbox_event").await;
}

/// Settles events at the gate, with or without their effect.
async fn gated(f: &Fixture, orders: &[NewOrder], does: bool) {
    let mut settlement = f.store.inbox.begin("worker").await.unwrap();
    settlement.gate(&orders.iter().map(|order| entry(order.event.event_id)).collect::<Vec<_>>()).await.unwrap();
    if does {
        settlement.apply(&orders.iter().map(processed).collect::<Vec<_>>()).await.unwrap();
    }
    settlement.commit().await.unwrap();
}

pub async fn an_event_that_was_settled_without_its_order_passes_the_gate_again(f: Fixture) {
    let made = orders("a", 0..3);
    lost(&f, &made).await;
    gated(&f, &made[..1], false).await;
    gated(&f, &made[1..2], true).await;
    f.sql("DELETE FROM outbox_event").await;
    let again = announce(&f, &made, LostAnnouncements::Ids(made.iter().map(|order| order.head.order_id).collect())).await;
    assert_eq!(again.orders, [made[0].head.order_id, made[2].head.order_id]);
    assert_eq!(again.left, [(made[1].head.order_id, Left::NotCreated)]);
    let rows = f.pending().await;
    let events: HashSet<_> = rows.iter().map(|row| row.event.event_id).collect();
    assert_eq!(events, HashSet::from([made[0].event.event_id, made[2].event.event_id]));
    assert_eq!(again.rows.len(), 2);
    assert!(again.rows.iter().all(|row| rows.contains(row)), "places and events are those of the table");

    let mut settlement = f.store.inbox.begin("worker").await.unwrap();
    let gate = settlement.gate(&made.iter().map(|order| entry(order.event.event_id)).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(gate.fresh, HashSet::from([made[0].event.event_id, made[2].event.event_id]), "what was done stays settled");
    assert_eq!(settlement.apply(&[processed(&made[0])]).await.unwrap().len(), 1);
    settlement.commit().await.unwrap();
    assert_eq!(f.get(&made[0]).await.unwrap().status, Status::Processed);
}

pub async fn lost_orders_are_walked_in_bites_and_none_is_passed_over(f: Fixture) {
    let made: Vec<NewOrder> = ["a", "b", "c", "d", "e"].iter().flat_map(|client| orders(client, 0..500)).collect();
    lost(&f, &made).await;
    // A call ends with a page of the table, here with the first one.
    let (mut found, mut after, mut calls) = (Vec::new(), None, 0);
    loop {
        let later = now() + std::time::Duration::from_secs(1);
        let again = announce(&f, &made, LostAnnouncements::Before { time: later, after }).await;
        assert!(again.left.is_empty() && again.rows.len() == again.orders.len());
        found.extend(again.orders);
        calls += 1;
        after = again.next;
        if after.is_none() {
            break;
        }
    }
    let mut wanted: Vec<OrderId> = made.iter().map(|order| order.head.order_id).collect();
    wanted.sort_unstable();
    assert!(found == wanted && calls > 1, "{} of {} in {calls} calls", found.len(), wanted.len());
    let again =
        announce(&f, &made, LostAnnouncements::Before { time: now() + std::time::Duration::from_secs(1), after: None }).await;
    assert_eq!(again.orders, [], "they are on their way");
    let early = LostAnnouncements::Before { time: now(), after: None };
    f.sql("DELETE FROM outbox_event").await;
    assert_eq!(announce(&f, &made, early).await.orders, [], "none is so old");
}

pub async fn orders_that_are_announced_by_two_at_once_have_one_event_each(f: Fixture) {
    let made = [order("a", "k1"), order("a", "k2")];
    lost(&f, &made).await;
    gated(&f, &made, false).await;
    let second = f.second().await;
    let ids = || LostAnnouncements::Ids(made.iter().map(|order| order.head.order_id).collect());
    let event = |id: OrderId| -> NewEvent { made.iter().find(|order| order.head.order_id == id).unwrap().event.clone() };
    let (one, two) = (ask(ids()), ask(ids()));
    let (one, two) = tokio::join!(
        f.store.operations.announce(&one, |origin| Ok(event(origin.order.head.order_id))),
        second.operations.announce(&two, |origin| Ok(event(origin.order.head.order_id))),
    );
    assert_eq!(one.unwrap().orders.len() + two.unwrap().orders.len(), 2, "whoever comes second sees what the first has written");
    assert_eq!(f.pending().await.len(), 2);
}
