//! Operations over dead letters.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use minishop_core::ids::OperationId;
use minishop_core::operation::{ItemState, Kind, Skip, State};
use minishop_core::order::Status;
use minishop_core::parking::State as Parked;
use minishop_store::{
    Action, DeadLetterFilter, DiscardCandidate, FrozenSet, Journal, NewOperation, NewOrder, Operation, OperationQuery,
    Operations, ParkedEvent, RequestedBy, Run, Selection, Transition,
};

use crate::support::{Fixture, client, event_id, now, order, order_id, orders, parked, processed, unique};

const LEASE: Duration = Duration::from_secs(30);

pub fn requested_by() -> RequestedBy {
    let correlation_id = minishop_core::ids::CorrelationId::parse("corr-9").unwrap();
    RequestedBy { client_id: client("anonymous"), operator: "ana".into(), reason: "the shop is fixed".into(), correlation_id }
}

pub fn operation(kind: Kind, selection: Selection) -> NewOperation {
    NewOperation {
        id: OperationId(order_id().0),
        kind,
        selection,
        filter: None,
        rate: 100,
        failure_ratio: 0.1,
        requested_by: requested_by(),
        at: now(),
    }
}

fn all() -> Selection {
    Selection::Filter(DeadLetterFilter::default())
}

/// Returns a blocking dead letter of an order.
fn dead_of(order: &NewOrder) -> ParkedEvent {
    ParkedEvent {
        order_id: Some(order.head.order_id),
        event_id: order.event.event_id,
        error_class: Some("exhausted"),
        error_code: Some("ATTEMPTS_EXHAUSTED"),
        ..parked(&order.head.customer_id, Parked::Dead, true)
    }
}

async fn park(f: &Fixture, parked: Vec<ParkedEvent>) -> Vec<i64> {
    let before = ids(f).await;
    let mut settlement = f.store.inbox.begin("worker").await.unwrap();
    settlement.record(&Journal { parked, ..Journal::default() }).await.unwrap();
    settlement.commit().await.unwrap();
    let before: HashSet<i64> = before.into_iter().collect();
    ids(f).await.into_iter().filter(|id| !before.contains(id)).collect()
}

/// Returns the ids of all dead letters, oldest first.
async fn ids(f: &Fixture) -> Vec<i64> {
    let letters = f.store.operations.dead_letters(&DeadLetterFilter::default(), None, 10_000).await.unwrap();
    letters.into_iter().rev().map(|letter| letter.id).collect()
}

pub async fn dead(f: &Fixture, count: usize) -> Vec<i64> {
    park(f, (0..count).map(|n| parked(&format!("dead-{n}-{}", unique()), Parked::Dead, true)).collect()).await
}

async fn begin(f: &Fixture, new: &NewOperation) -> FrozenSet {
    f.store.operations.begin(new).await.unwrap().unwrap().0
}

async fn claim(operations: &Operations, owner: &str) -> Vec<Run> {
    operations.claim(owner, LEASE, 8).await.unwrap()
}

async fn stands(f: &Fixture, id: OperationId) -> Operation {
    f.store.operations.operation(id).await.unwrap().unwrap()
}

pub async fn dead_letters_are_found_by_each_filter(f: Fixture) {
    let odd = ParkedEvent {
        error_class: Some("odd"),
        error_code: Some("ODD"),
        error_fingerprint: Some([7; 32]),
        topic: "elsewhere".into(),
        ..parked("the key", Parked::Dead, true)
    };
    let wanted = park(&f, vec![odd.clone()]).await;
    dead(&f, 3).await;
    park(
        &f,
        vec![ParkedEvent { event_id: event_id(), ..odd.clone() }]
            .into_iter()
            .map(|p| ParkedEvent { state: Parked::Waiting, ..p })
            .collect(),
    )
    .await;
    let any = DeadLetterFilter::default;
    for filter in [
        DeadLetterFilter { error_class: Some("odd".into()), ..any() },
        DeadLetterFilter { error_code: Some("ODD".into()), ..any() },
        DeadLetterFilter { error_fingerprint: Some(Bytes::from_static(&[7; 32])), ..any() },
        DeadLetterFilter { topic: Some("elsewhere".into()), ..any() },
        DeadLetterFilter { record_key: Some(Bytes::from_static(b"the key")), ..any() },
        DeadLetterFilter { order_id: odd.order_id, ..any() },
    ] {
        let found = f.store.operations.dead_letters(&filter, None, 10).await.unwrap();
        assert_eq!(found.iter().map(|letter| letter.id).collect::<Vec<_>>(), wanted, "{filter:?}");
    }
    let newest = f.store.operations.dead_letters(&any(), None, 2).await.unwrap();
    let rest = f.store.operations.dead_letters(&any(), Some(newest[1].id), 10).await.unwrap();
    let listed: Vec<i64> = newest.iter().chain(&rest).map(|letter| letter.id).collect();
    assert!(listed.is_sorted_by(|a, b| a > b), "newest first: {listed:?}");
    assert_eq!(listed.len(), 4);
}

pub async fn a_dead_letter_is_read_with_its_bytes_and_its_order(f: Fixture) {
    let made = order("a", "k1");
    f.accept(std::slice::from_ref(&made)).await;
    let event = ParkedEvent { raw_value: Some(Bytes::from_static(b"\x00\xff")), ..dead_of(&made) };
    let id = park(&f, vec![event.clone(), parked("c1", Parked::Waiting, true), parked("c1", Parked::Waiting, true)]).await[0];
    let whole = f.store.operations.dead_letter(id).await.unwrap().unwrap();
    assert_eq!((whole.raw_key, whole.raw_value, whole.raw_headers), (event.raw_key, event.raw_value, event.raw_headers));
    assert_eq!((whole.waiting, whole.order_status.as_deref(), whole.next_attempt_at), (2, Some("created"), None));
    assert_eq!((whole.letter.order_id, whole.letter.state.as_str()), (Some(made.head.order_id), "dead"));
    assert_eq!(f.store.operations.dead_letter(id + 100).await.unwrap(), None);
}

pub async fn equal_failures_form_a_group(f: Fixture) {
    dead(&f, 2).await;
    let other = |fingerprint| ParkedEvent { error_fingerprint: fingerprint, ..parked("k", Parked::Dead, false) };
    let newest =
        *park(&f, vec![other(Some([1; 32])), other(None), other(Some([1; 32])), other(Some([1; 32]))]).await.last().unwrap();
    let groups = f.store.operations.dead_letter_groups(10).await.unwrap();
    assert_eq!(groups.iter().map(|group| group.count).collect::<Vec<_>>(), [3, 2, 1]);
    assert_eq!((groups[0].example, groups[0].error_fingerprint.as_deref()), (newest, Some(&[1; 32][..])));
    assert_eq!((groups[2].error_fingerprint.clone(), groups[2].first_failed_at), (None, now()));
}

pub async fn a_parked_key_is_told_by_its_head(f: Fixture) {
    let head = park(&f, vec![parked("c1", Parked::Dead, true)]).await[0];
    let newer = ParkedEvent { needs_type: Some("orders.created.v2".into()), ..parked("c2", Parked::Waiting, true) };
    park(
        &f,
        vec![parked("c1", Parked::Waiting, true), parked("c3", Parked::Dead, false), newer, parked("c1", Parked::Waiting, true)],
    )
    .await;
    let keys = f.store.operations.parked_keys(None, 10).await.unwrap();
    let told: Vec<_> = keys.iter().map(|key| (&key.record_key[..], key.state.as_str(), key.waiting)).collect();
    assert_eq!(told, [(&b"c1"[..], "dead", 2), (&b"c2"[..], "waiting", 0)]);
    assert_eq!((keys[0].head, keys[1].needs_type.as_deref()), (head, Some("orders.created.v2")));
    let rest = f.store.operations.parked_keys(Some(head), 10).await.unwrap();
    assert_eq!(rest, keys[1..]);
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
    let control = async |action| operations.control(new.id, action, &requested_by(), now()).await.unwrap().unwrap().1;
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

pub async fn paused_operations_do_not_keep_others_from_a_worker(f: Fixture) {
    let mut made = Vec::new();
    for _ in 0..4 {
        dead(&f, 1).await;
        let new = operation(Kind::Redrive, all());
        begin(&f, &new).await;
        made.push(new.id);
    }
    for paused in &made[..3] {
        f.store.operations.control(*paused, Action::Pause, &requested_by(), now()).await.unwrap();
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
    assert_eq!((audit[0].requested_by.clone(), audit[0].outcome.as_str()), (requested_by(), "accepted"));
}
