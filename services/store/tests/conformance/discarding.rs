//! Discards of dead letters.

use minishop_core::operation::Kind;
use minishop_core::order::Status;
use minishop_core::parking::State as Parked;
use minishop_store::{DiscardCandidate, NewOrder, ParkedEvent, Transition};
use minishop_testkit::lot::{operation, parked};
use minishop_testkit::rows::{event_id, now, order, orders};

use crate::repairing::{all, begin, claim, dead_of, park};
use crate::support::{Fixture, processed};

pub fn failed(order: &NewOrder) -> Transition {
    Transition { to: Status::Failed, ..processed(order) }
}

pub async fn a_discarded_dead_letter_fails_its_order_and_makes_the_next_event_due(f: Fixture) {
    let made = orders("a", 0..1).remove(0);
    f.accept(std::slice::from_ref(&made)).await;
    park(&f, vec![dead_of(&made), parked("c1", Parked::Waiting, true), parked("c1", Parked::Waiting, true)]).await;
    let new = operation(Kind::Discard, all());
    begin(&f, &new).await;
    let operations = &f.store.operations;
    let run = claim(operations, "w").await.remove(0);
    let candidate = operations.discard_candidates(&run, 10).await.unwrap();
    let known = &candidate[0].order.as_ref().unwrap().order;
    assert_eq!((candidate.len(), candidate[0].announced, known.head.order_id, known.version), (1, true, made.head.order_id, 1));
    assert_eq!((&*known.head.customer_id, known.head.total_minor, known.status), ("c1", 2100, Status::Created));
    let number = operations.discard(&run, &candidate[0], Some(&failed(&made)), now()).await.unwrap().unwrap();
    let row = f.get(&made).await.unwrap();
    assert_eq!((row.status, row.version), (Status::Failed, 2));
    assert!(f.pending().await.iter().any(|outbox| outbox.event.order_version == Some(2) && Some(outbox.number) == number));
    assert_eq!(f.count("parked WHERE next_attempt_at IS NOT NULL").await, 1, "the next event of the key and no other is due");
    assert_eq!(f.count("timeline WHERE kind = 'discarded'").await, 1);
    assert_eq!(f.count("audit WHERE outcome = 'discarded'").await, 1);
    let again = operations.discard(&run, &candidate[0], Some(&failed(&made)), now()).await.unwrap().unwrap();
    assert_eq!(again, None, "what is gone is left alone");
}

pub async fn a_discarded_copy_changes_no_order(f: Fixture) {
    let made = order("a", "k1");
    f.accept(std::slice::from_ref(&made)).await;
    park(&f, vec![ParkedEvent { blocks: false, event_id: event_id(), ..dead_of(&made) }, parked("c1", Parked::Waiting, true)])
        .await;
    begin(&f, &operation(Kind::Discard, all())).await;
    let run = claim(&f.store.operations, "w").await.remove(0);
    let candidate = f.store.operations.discard_candidates(&run, 10).await.unwrap().remove(0);
    assert!(!candidate.announced);
    f.store.operations.discard(&run, &candidate, None, now()).await.unwrap().unwrap();
    assert_eq!(f.get(&made).await.unwrap().status, Status::Created);
    assert_eq!((f.count("parked").await, f.count("parked WHERE next_attempt_at IS NOT NULL").await), (1, 0));
}

pub async fn a_discard_leaves_another_event_under_a_known_id_alone(f: Fixture) {
    let made = order("a", "k1");
    f.accept(std::slice::from_ref(&made)).await;
    park(&f, vec![dead_of(&made)]).await;
    begin(&f, &operation(Kind::Discard, all())).await;
    let run = claim(&f.store.operations, "w").await.remove(0);
    // As if read before a restore that gave the id to another event.
    let candidate =
        DiscardCandidate { event_id: event_id(), ..f.store.operations.discard_candidates(&run, 10).await.unwrap().remove(0) };
    let number = f.store.operations.discard(&run, &candidate, Some(&failed(&made)), now()).await.unwrap().unwrap();
    assert_eq!((number, f.get(&made).await.unwrap().status, f.count("parked").await), (None, Status::Created, 1));
    assert_eq!(f.count("operation_item WHERE state = 'skipped' AND reason = 'NOT_FOUND'").await, 1);
}

pub async fn an_event_that_was_refused_first_fails_its_order_when_it_is_given_up_later(f: Fixture) {
    let made = order("a", "k1");
    f.accept(std::slice::from_ref(&made)).await;
    // One worker could not read it, so its key continued; a newer worker identified its order.
    park(&f, vec![ParkedEvent { blocks: false, ..dead_of(&made) }]).await;
    begin(&f, &operation(Kind::Discard, all())).await;
    let run = claim(&f.store.operations, "w").await.remove(0);
    let candidate = f.store.operations.discard_candidates(&run, 10).await.unwrap().remove(0);
    assert!(candidate.announced);
    f.store.operations.discard(&run, &candidate, Some(&failed(&made)), now()).await.unwrap().unwrap();
    assert_eq!(f.get(&made).await.unwrap().status, Status::Failed);
    assert_eq!(f.count("timeline WHERE kind = 'discarded'").await, 1);
}
