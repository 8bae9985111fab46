//! Operations over dead letters.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use minishop_core::ids::OperationId;
use minishop_core::operation::{ItemState, Kind, Skip, State};
use minishop_core::parking::State as Parked;
use minishop_store::{
    Action, DeadLetterFilter, FrozenSet, NewOperation, NewOrder, Operation, OperationQuery, Operations, ParkedEvent, Run,
    Selection,
};
use minishop_testkit::lot::{self, operation, parked, requested_by};
use minishop_testkit::rows::{now, orders, unique};

use crate::support::Fixture;

pub const LEASE: Duration = Duration::from_secs(30);

pub fn all() -> Selection {
    Selection::Filter(DeadLetterFilter::default())
}

/// Returns a blocking dead letter of an order.
pub fn dead_of(order: &NewOrder) -> ParkedEvent {
    ParkedEvent {
        order_id: Some(order.head.order_id),
        event_id: order.event.event_id,
        error_class: Some("exhausted"),
        error_code: Some("ATTEMPTS_EXHAUSTED"),
        ..parked(&order.head.customer_id, Parked::Dead, true)
    }
}

pub async fn park(f: &Fixture, parked: Vec<ParkedEvent>) -> Vec<i64> {
    let before = ids(f).await;
    lot::park(&f.store, "worker", parked).await;
    let before: HashSet<i64> = before.into_iter().collect();
    ids(f).await.into_iter().filter(|id| !before.contains(id)).collect()
}

/// Returns the ids of all dead letters, oldest first.
pub async fn ids(f: &Fixture) -> Vec<i64> {
    let letters = f.store.operations.dead_letters(&DeadLetterFilter::default(), None, 10_000).await.unwrap();
    letters.into_iter().rev().map(|letter| letter.id).collect()
}

pub async fn dead(f: &Fixture, count: usize) -> Vec<i64> {
    park(f, (0..count).map(|n| parked(&format!("dead-{n}-{}", unique()), Parked::Dead, true)).collect()).await
}

pub async fn begin(f: &Fixture, new: &NewOperation) -> FrozenSet {
    f.store.operations.begin(new).await.unwrap().unwrap().0
}

pub async fn claim(operations: &Operations, owner: &str) -> Vec<Run> {
    operations.claim(owner, LEASE, 8).await.unwrap()
}

pub async fn stands(f: &Fixture, id: OperationId) -> Operation {
    f.store.operations.operation(id).await.unwrap().unwrap()
}

pub async fn a_frozen_set_is_not_touched_by_what_comes_later(f: Fixture) {
    dead(&f, 3).await;
    let new = operation(Kind::Redrive, all());
    assert_eq!(begin(&f, &new).await, FrozenSet { matched: 3, skipped: Vec::new() });
    dead(&f, 2).await;
    let run = claim(&f.store.operations, "w").await.remove(0);
    assert_eq!(f.store.operations.release(&run, 100, now()).await.unwrap(), Some(3));
    assert_eq!(f.count("parked WHERE state = 'dead'").await, 2);
}

pub async fn two_operations_over_one_set_share_it(f: Fixture) {
    dead(&f, 40).await;
    let (one, two) = (operation(Kind::Redrive, all()), operation(Kind::Discard, all()));
    let (first, second) = (f.store.operations.clone(), f.second().await.operations);
    let (a, b) = futures::join!(first.begin(&one), second.begin(&two));
    let (a, b) = (a.unwrap().unwrap().0, b.unwrap().unwrap().0);
    assert_eq!((a.matched + b.matched, a.matched * b.matched), (40, 0), "one of them has them all");
    let loser = if a.matched == 0 { a } else { b };
    assert!(loser.skipped.iter().all(|(_, skip)| *skip == Skip::Taken));
    assert_eq!(loser.skipped.len(), 40);
}

pub async fn a_dry_run_tells_the_same_and_writes_nothing(f: Fixture) {
    let known = dead(&f, 3).await;
    let new = operation(Kind::Redrive, Selection::Ids(vec![known[0], known[2], 999_999]));
    let told = f.store.operations.dry_run(&new).await.unwrap().unwrap();
    for table in ["operation", "operation_item", "audit", "parked WHERE state <> 'dead'"] {
        assert_eq!(f.count(table).await, 0, "{table}");
    }
    assert_eq!(told, begin(&f, &new).await);
}

pub async fn ids_that_are_left_alone_are_told_with_their_reason(f: Fixture) {
    let known = dead(&f, 4).await;
    f.sql(&format!("UPDATE parked SET state = 'retrying' WHERE id = {}", known[0])).await;
    f.sql(&format!("UPDATE parked SET redrives = 5 WHERE id = {}", known[1])).await;
    begin(&f, &operation(Kind::Redrive, Selection::Ids(vec![known[2]]))).await;
    let asked = [known.clone(), vec![888_888]].concat();
    let frozen = begin(&f, &operation(Kind::Redrive, Selection::Ids(asked))).await;
    assert_eq!(frozen.matched, 1);
    let reasons: HashMap<i64, Skip> = frozen.skipped.into_iter().collect();
    let expected = [(known[0], Skip::NotDead), (known[1], Skip::LoopGuard), (known[2], Skip::Taken), (888_888, Skip::NotFound)];
    assert_eq!(reasons, HashMap::from(expected));
    let giving_up = begin(&f, &operation(Kind::Discard, Selection::Ids(vec![known[1]]))).await;
    assert_eq!(giving_up.matched, 1, "giving up is no loop");
}

pub async fn an_operation_over_unknown_ids_is_not_begun(f: Fixture) {
    for selection in [Selection::Ids(vec![1, 2]), Selection::Ids(Vec::new())] {
        assert_eq!(f.store.operations.begin(&operation(Kind::Discard, selection)).await.unwrap(), None);
    }
    assert_eq!((f.count("operation").await, f.count("audit").await), (0, 0));
}

pub async fn an_operation_over_nothing_is_done_at_once(f: Fixture) {
    let new = operation(Kind::Redrive, all());
    assert_eq!(begin(&f, &new).await, FrozenSet::default());
    let operation = stands(&f, new.id).await;
    assert_eq!((operation.state, operation.ended_at.is_some()), (State::Done, true));
    assert!(claim(&f.store.operations, "w").await.is_empty());
}

pub async fn released_dead_letters_are_due_again_and_decided_by_their_rows(f: Fixture) {
    let made = orders("a", 0..4);
    f.accept(&made).await;
    let known = park(&f, made.iter().map(dead_of).collect()).await;
    f.sql("UPDATE parked SET attempts = 8, leased_until = next_attempt_at").await;
    let new = operation(Kind::Redrive, all());
    begin(&f, &new).await;
    let run = claim(&f.store.operations, "w").await.remove(0);
    let operations = &f.store.operations;
    assert_eq!(operations.release(&run, 3, now()).await.unwrap(), Some(3));
    let due = "parked WHERE state = 'retrying' AND attempts = 0 AND redrives = 1 AND next_attempt_at IS NOT NULL \
        AND error_code IS NULL AND leased_until IS NULL";
    assert_eq!((f.count(due).await, f.count("timeline WHERE kind = 'redriven'").await), (3, 3));
    let tally = |operation: &Operation| {
        let t = operation.tally;
        (t.pending, t.released, t.succeeded, t.failed)
    };
    assert_eq!(tally(&operations.decide(&run).await.unwrap().unwrap()), (1, 3, 0, 0), "nothing is decided yet");
    // One was processed, one is being retried, one failed again.
    f.sql(&format!("DELETE FROM parked WHERE id = {}", known[0])).await;
    f.sql(&format!("UPDATE parked SET attempts = 1 WHERE id = {}", known[1])).await;
    f.sql(&format!("UPDATE parked SET attempts = 1, error_class = 'transient', error_code = 'X' WHERE id = {}", known[2])).await;
    assert_eq!(tally(&operations.decide(&run).await.unwrap().unwrap()), (1, 1, 1, 1));
    let items = operations.items(new.id).await.unwrap();
    assert_eq!(
        items.iter().map(|i| (i.parked_id, i.state, i.reason.as_str())).collect::<Vec<_>>(),
        [(known[2], ItemState::Failed, "X")]
    );
}

pub async fn a_sixth_redrive_is_refused(f: Fixture) {
    dead(&f, 1).await;
    for time in 1..=6 {
        let frozen = begin(&f, &operation(Kind::Redrive, all())).await;
        let Some(run) = claim(&f.store.operations, "w").await.pop() else {
            assert_eq!((time, frozen.skipped[0].1), (6, Skip::LoopGuard));
            return;
        };
        f.store.operations.release(&run, 1, now()).await.unwrap();
        f.sql("UPDATE parked SET state = 'dead', error_class = 'exhausted', error_code = 'X'").await;
        let tally = f.store.operations.decide(&run).await.unwrap().unwrap().tally;
        assert!(f.store.operations.end(&run, &tally, now()).await.unwrap());
    }
    panic!("it was redriven a sixth time");
}

pub async fn a_lease_that_ran_out_goes_to_another_worker_and_the_first_can_do_nothing(f: Fixture) {
    dead(&f, 2).await;
    begin(&f, &operation(Kind::Redrive, all())).await;
    let (one, two) = (f.store.operations.clone(), f.second().await.operations);
    let run = claim(&one, "one").await.remove(0);
    assert!(claim(&two, "two").await.is_empty());
    assert_eq!(claim(&one, "one").await[0].epoch, run.epoch, "a renewal is the same lease");
    f.age(LEASE + Duration::from_secs(1)).await;
    let taken = claim(&two, "two").await.remove(0);
    assert_eq!(one.release(&run, 2, now()).await.unwrap(), None);
    assert_eq!(one.decide(&run).await.unwrap(), None);
    assert_eq!(two.release(&taken, 2, now()).await.unwrap(), Some(2));
}

pub async fn a_paused_operation_releases_nothing_and_a_cancelled_one_gives_its_set_back(f: Fixture) {
    dead(&f, 3).await;
    let new = operation(Kind::Redrive, all());
    begin(&f, &new).await;
    let operations = &f.store.operations;
    let run = claim(operations, "w").await.remove(0);
    operations.release(&run, 1, now()).await.unwrap();
    let control =
        async |action| operations.control(new.id, action, &requested_by("the shop is fixed"), now()).await.unwrap().unwrap().1;
    assert!(control(Action::Pause).await && !control(Action::Pause).await);
    assert_eq!(operations.release(&run, 1, now()).await.unwrap(), None);
    assert!(control(Action::Resume).await);
    assert_eq!(operations.release(&run, 1, now()).await.unwrap(), Some(1));
    assert!(control(Action::Cancel).await && !control(Action::Cancel).await);
    let operation_now = stands(&f, new.id).await;
    assert_eq!((operation_now.state, operation_now.tally.released, operation_now.tally.skipped), (State::Stopped, 2, 1));
    assert_eq!(begin(&f, &operation(Kind::Redrive, all())).await.matched, 1, "what was not released may be taken");
    assert_eq!(f.count("audit WHERE action IN ('pause', 'resume', 'cancel')").await, 3);
}

pub async fn paused_operations_do_not_keep_others_from_a_worker(f: Fixture) {
    let mut made = Vec::new();
    for _ in 0..4 {
        dead(&f, 1).await;
        let new = operation(Kind::Redrive, all());
        begin(&f, &new).await;
        made.push(new.id);
    }
    for paused in &made[..3] {
        f.store.operations.control(*paused, Action::Pause, &requested_by("the shop is fixed"), now()).await.unwrap();
    }
    let runs = f.store.operations.claim("w", LEASE, 1).await.unwrap();
    assert_eq!(runs.iter().map(|run| run.operation.id).collect::<Vec<_>>(), made[3..]);
}

pub async fn operations_and_audit_are_listed_newest_first(f: Fixture) {
    let mut made = Vec::new();
    for kind in [Kind::Redrive, Kind::Discard, Kind::Redrive] {
        dead(&f, 1).await;
        let new = operation(kind, all());
        begin(&f, &new).await;
        made.push(new.id);
    }
    let list = async |query: OperationQuery| {
        let rows = f.store.operations.operations(&OperationQuery { limit: 2, ..query }).await.unwrap();
        rows.into_iter().map(|operation| operation.id).collect::<Vec<_>>()
    };
    assert_eq!(list(OperationQuery::default()).await, [made[2], made[1]]);
    assert_eq!(list(OperationQuery { before: Some(made[1]), ..OperationQuery::default() }).await, [made[0]]);
    assert_eq!(list(OperationQuery { kind: Some(Kind::Discard), ..OperationQuery::default() }).await, [made[1]]);
    assert!(list(OperationQuery { state: Some(State::Paused), ..OperationQuery::default() }).await.is_empty());
    let audit = f.store.operations.audit(None, 2).await.unwrap();
    let rest = f.store.operations.audit(Some(audit[1].id), 2).await.unwrap();
    let told: Vec<_> = audit.iter().chain(&rest).map(|row| row.operation_id.unwrap()).collect();
    assert_eq!(told, [made[2], made[1], made[0]]);
    assert_eq!((audit[0].requested_by.clone(), audit[0].outcome.as_str()), (requested_by("the shop is fixed"), "accepted"));
}
