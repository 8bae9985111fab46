//! Orders that are cancelled and watched, and their timeline.

use minishop_core::order::Status;
use minishop_core::parking::State;
use minishop_core::timeline::NoteKind;
use minishop_store::NewOrder;
use minishop_store::{Journal, Note, ParkedEvent, Role, Transition};
use minishop_testkit::lot::parked;
use minishop_testkit::rows::{client, event, event_id, now, order, order_id};

use crate::support::{Fixture, processed};

pub fn cancelled(order: &NewOrder) -> Transition {
    Transition {
        to: Status::Cancelled,
        event: event(Role::Api, &order.head.customer_id, order.head.order_id, 2),
        ..processed(order)
    }
}

pub async fn a_cancel_passes_once_and_is_found_under_its_own_event(f: Fixture) {
    let order = order("a", "k");
    f.accept(std::slice::from_ref(&order)).await;
    let change = cancelled(&order);
    let mut connection = f.store.orders.cancels().await.unwrap();
    let place = connection.cancel(&change, r#"{"why":"x"}"#).await.unwrap();
    let last = f.pending().await.into_iter().find(|row| Some(row.number) == place).unwrap();
    assert_eq!(last.event, change.event);
    assert_eq!(connection.cancel(&change, "{}").await.unwrap(), None, "again");
    let mut late = f.store.inbox.begin("worker").await.unwrap();
    assert!(late.apply(&[processed(&order)]).await.unwrap().is_empty(), "the worker comes too late");
    late.commit().await.unwrap();
    let origin = f.store.timeline.origin(&order.head.client_id, order.head.order_id).await.unwrap().unwrap();
    assert_eq!((origin.order.status, origin.order.version), (Status::Cancelled, 2));
    assert_eq!((origin.created_event_id, origin.settled_event_id), (order.event.event_id, Some(change.event.event_id)));
    assert_eq!((origin.order.head.key, origin.adopted), (order.head.key.clone(), false));
    let facts = f.store.timeline.facts(order.head.order_id, 0, 10).await.unwrap();
    assert_eq!(facts.len(), 1);
    let fact = &facts[0];
    assert_eq!((fact.version, fact.kind.as_str(), fact.at, fact.cause), (Some(2), "cancelled", now(), order.event.event_id));
    assert!(fact.detail.as_ref().unwrap().contains("why"));
    assert_eq!(f.count("outbox_event").await, 2);
}

pub async fn a_cancel_gives_way_to_another_change(f: Fixture) {
    let order = order("a", "k");
    f.accept(std::slice::from_ref(&order)).await;
    let mut settlement = f.store.inbox.begin("worker").await.unwrap();
    let change = processed(&order);
    settlement.apply(std::slice::from_ref(&change)).await.unwrap();
    settlement.record(&Journal { events: vec![change.event], ..Journal::default() }).await.unwrap();
    settlement.commit().await.unwrap();
    let mut connection = f.store.orders.cancels().await.unwrap();
    assert_eq!(connection.cancel(&cancelled(&order), "{}").await.unwrap(), None);
    assert_eq!(f.get(&order).await.unwrap().status, Status::Processed);
    assert_eq!((f.count("timeline").await, f.count("outbox_event").await), (1, 2));
}

pub async fn only_orders_with_a_greater_version_have_changed(f: Fixture) {
    let orders = [order("a", "k1"), order("b", "k2"), order("a", "k3")];
    for order in &orders {
        f.accept(std::slice::from_ref(order)).await;
    }
    let mut connection = f.store.orders.cancels().await.unwrap();
    connection.cancel(&cancelled(&orders[1]), "{}").await.unwrap();
    let known = |n: usize, version| (orders[n].head.order_id, version);
    let changed = async |known: &[_]| {
        let mut found = f.store.orders.changed(known).await.unwrap();
        found.sort_by_key(|changed| changed.order.head.order_id);
        found.into_iter().map(|changed| (changed.order.head.order_id, changed.order.version, changed.at)).collect::<Vec<_>>()
    };
    assert_eq!(changed(&[]).await, []);
    assert_eq!(changed(&[known(0, 1), known(1, 1), known(2, 1)]).await, [(orders[1].head.order_id, 2, Some(now()))]);
    assert_eq!(changed(&[known(1, 2), known(0, 7), (order_id(), 0)]).await, []);
    assert_eq!(changed(&[known(0, 0)]).await, [(orders[0].head.order_id, 1, None)]);
    let read = f.store.orders.changed(&[known(1, 1)]).await.unwrap().pop().unwrap();
    assert_eq!(Some(read.order), f.get(&orders[1]).await, "whole, and of whatever client");
    let many: Vec<_> = (0..10_000).map(|_| (order_id(), 1)).chain([known(1, 1)]).collect();
    assert_eq!(changed(&many).await.len(), 1);
}

pub async fn a_timeline_is_read_in_pages_and_of_one_order(f: Fixture) {
    let (one, other) = (order_id(), order_id());
    let note = |order_id, n: usize| Note {
        order_id,
        kind: NoteKind::Parked,
        at: now(),
        cause: event_id(),
        detail: n.is_multiple_of(2).then(|| format!(r#"{{"n": {n}}}"#)),
    };
    let notes: Vec<Note> = (0..7).flat_map(|n| [note(one, n), note(other, n)]).collect();
    let mut settlement = f.store.inbox.begin("worker").await.unwrap();
    settlement.record(&Journal { notes: notes.clone(), ..Journal::default() }).await.unwrap();
    settlement.commit().await.unwrap();
    let (mut seen, mut after) = (Vec::new(), 0);
    loop {
        let page = f.store.timeline.facts(one, after, 3).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.id;
        seen.extend(page);
    }
    let wanted: Vec<_> = notes.iter().filter(|note| note.order_id == one).collect();
    assert_eq!(seen.iter().map(|fact| fact.cause).collect::<Vec<_>>(), wanted.iter().map(|note| note.cause).collect::<Vec<_>>());
    assert!(
        seen.iter().zip(&wanted).all(|(fact, note)| fact.detail.is_some() == note.detail.is_some() && fact.version.is_none())
    );
}

pub async fn what_stands_in_the_lot_is_found_by_its_order(f: Fixture) {
    let order = order_id();
    let rows = [
        ParkedEvent { order_id: Some(order), ..parked("c1", State::Dead, true) },
        parked("c1", State::Dead, true),
        ParkedEvent { order_id: Some(order), failed_at: None, error_code: None, ..parked("c1", State::Retrying, false) },
    ];
    let mut settlement = f.store.inbox.begin("worker").await.unwrap();
    settlement.record(&Journal { parked: rows.to_vec(), ..Journal::default() }).await.unwrap();
    settlement.commit().await.unwrap();
    let found = f.store.timeline.standing(order, 10).await.unwrap();
    let told: Vec<_> = found.iter().map(|s| (s.event_id, s.state, s.blocks, s.next_attempt_at.is_some())).collect();
    let wanted = [(rows[0].event_id, State::Dead, true, false), (rows[2].event_id, State::Retrying, false, true)];
    assert_eq!(told, wanted);
    assert_eq!((found[0].error_code.as_deref(), found[1].error_code.as_deref()), (Some("DATA_INVALID"), None));
    assert_eq!(f.store.timeline.standing(order, 1).await.unwrap().len(), 1);
}

pub async fn an_origin_is_read_by_its_client_alone(f: Fixture) {
    let order = NewOrder { traceparent: Some("00-1-2-01".into()), ..order("a", "k") };
    f.accept(std::slice::from_ref(&order)).await;
    let origin = f.store.timeline.origin(&order.head.client_id, order.head.order_id).await.unwrap().unwrap();
    assert_eq!((Some(origin.order), origin.traceparent), (f.get(&order).await, order.traceparent.clone()));
    assert_eq!(f.store.timeline.origin(&client("b"), order.head.order_id).await.unwrap(), None);
}
