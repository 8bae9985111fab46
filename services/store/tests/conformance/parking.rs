//! The parking lot as a worker uses it.

use std::collections::HashSet;
use std::time::Duration;

use futures::future::join_all;
use minishop_core::parking::State;
use minishop_store::{Claim, Claimed, Failure, Identity, Lease, ParkedEvent, Release, Store};
use minishop_testkit::lot::{park, parked};
use minishop_testkit::rows::{client, event_id, now, order_id};

use crate::support::{Fixture, entry};

pub const LEASE: Duration = Duration::from_secs(40);
/// After this time every lease of a claim has expired.
const OVER: Duration = Duration::from_secs(40 + 15);

fn types() -> Vec<String> {
    vec!["orders.created".to_owned(), "orders.created.v1".to_owned()]
}

async fn claim(store: &Store, limit: usize) -> Vec<Claimed> {
    let types = types();
    let mut rows = store.lot.claim("worker", &Claim { types: &types, lease: LEASE, limit }).await.unwrap();
    rows.sort_by_key(|row| row.lease.id);
    rows
}

async fn drain(store: &Store, leases: &[Lease]) -> HashSet<i64> {
    let mut tx = store.lot.begin("worker").await.unwrap();
    let held = tx.drain(leases).await.unwrap();
    tx.commit().await.unwrap();
    held
}

async fn release(store: &Store, row: Release) -> bool {
    let mut tx = store.lot.begin("worker").await.unwrap();
    let held = tx.release(std::slice::from_ref(&row)).await.unwrap();
    tx.commit().await.unwrap();
    held.contains(&row.lease.id)
}

fn again(lease: Lease, again_in: Option<Duration>) -> Release {
    let failure = Failure {
        class: "transient",
        code: again_in.is_none().then_some("ATTEMPTS_EXHAUSTED"),
        message: "503".to_owned(),
        fingerprint: [3; 32],
        at: now(),
    };
    Release { lease, again_in, uncounted: false, unblocks: false, failure: Some(failure) }
}

fn due(key: &str) -> ParkedEvent {
    ParkedEvent { error_class: None, error_code: None, failed_at: None, ..parked(key, State::Retrying, true) }
}

fn waiting(key: &str) -> ParkedEvent {
    ParkedEvent { state: State::Waiting, ..due(key) }
}

fn held(key: &str, needs: &str) -> ParkedEvent {
    ParkedEvent { needs_type: Some(needs.to_owned()), order_id: None, ..waiting(key) }
}

pub async fn a_claim_counts_the_attempt_and_keeps_the_row_from_others(f: Fixture) {
    let row = due("c1");
    park(&f.store, "worker", vec![row.clone()]).await;
    let claimed = claim(&f.store, 32).await;
    assert_eq!(claimed.len(), 1);
    let got = &claimed[0];
    assert_eq!((got.event_id, got.order_id, &got.record_key), (row.event_id, row.order_id, &row.record_key));
    assert_eq!((&*got.topic, got.partition, got.offset), ("orders.created", 3, 42));
    assert_eq!((&got.raw_key, &got.raw_value, &got.raw_headers), (&row.raw_key, &row.raw_value, &row.raw_headers));
    assert_eq!((got.attempts, got.redrives, got.abandoned, got.first_failed_at), (1, 0, false, None));
    assert_eq!(claim(&f.second().await, 32).await, []);
    assert_eq!(f.count("parked WHERE attempts = 1 AND leased_until IS NOT NULL").await, 1, "it is on disk");
    f.age(OVER).await;
    let again = claim(&f.store, 32).await;
    assert_eq!((again[0].attempts, again[0].abandoned), (2, true), "its worker died: claimed again, and said so");
}

pub async fn the_leases_of_one_claim_end_one_after_the_other(f: Fixture) {
    park(&f.store, "worker", (0..32).map(|n| due(&format!("c{n}"))).collect()).await;
    assert_eq!(claim(&f.store, 32).await.len(), 32);
    f.age(LEASE + Duration::from_secs(7)).await;
    let first = claim(&f.store, 32).await.len();
    assert!((1..32).contains(&first), "{first} of 32 have run out together");
    f.age(Duration::from_secs(8)).await;
    assert_eq!(claim(&f.store, 32).await.len(), 32 - first);
}

pub async fn only_heads_and_rows_that_block_nothing_are_claimed(f: Fixture) {
    let dead_head = ParkedEvent { state: State::Dead, ..due("c2") };
    let beside = ParkedEvent { blocks: false, ..due("c2") };
    let mut second = due("c1");
    second.offset = 43;
    park(&f.store, "worker", vec![due("c1"), second, dead_head, due("c2"), beside.clone(), due("c3"), waiting("c3")]).await;
    let claimed = claim(&f.store, 32).await;
    let keys: Vec<_> = claimed.iter().map(|row| (&row.record_key[..], row.offset)).collect();
    assert_eq!(keys, [(&b"c1"[..], 42), (b"c2", 42), (b"c3", 42)]);
    assert_eq!(claimed[1].event_id, beside.event_id, "nothing passes a dead head but what does not wait for it");
}

pub async fn rows_come_up_to_the_limit_and_the_longest_due_first(f: Fixture) {
    for key in ["a", "b", "c"] {
        park(&f.store, "worker", vec![due(key)]).await;
        f.age(Duration::from_secs(10)).await;
    }
    let keys = async |limit| claim(&f.store, limit).await.into_iter().map(|row| row.record_key).collect::<Vec<_>>();
    assert_eq!((keys(2).await, keys(2).await), (vec!["a".into(), "b".into()], vec!["c".into()]));
}

pub async fn two_workers_at_once_never_claim_a_row_or_a_key_twice(f: Fixture) {
    let rows = (0..60).flat_map(|n| [due(&format!("c{n}")), waiting(&format!("c{n}"))]).collect();
    park(&f.store, "worker", rows).await;
    let stores = [f.store.clone(), f.second().await, f.second().await];
    let mut seen = HashSet::new();
    for _ in 0..2 {
        let mut round: Vec<(Lease, Vec<u8>)> = Vec::new();
        loop {
            let claims = join_all(stores.iter().map(|store| claim(store, 7))).await;
            let more: Vec<_> = claims.into_iter().flatten().map(|row| (row.lease, row.record_key.to_vec())).collect();
            if more.is_empty() {
                break;
            }
            round.extend(more);
        }
        let keys: HashSet<_> = round.iter().map(|(_, key)| key.clone()).collect();
        assert_eq!((round.len(), keys.len()), (60, 60), "every key once");
        assert!(round.iter().all(|(lease, _)| seen.insert(lease.id)), "no row twice");
        for (store, leases) in stores.iter().cycle().zip(round.chunks(9)) {
            drain(store, &leases.iter().map(|(lease, _)| *lease).collect::<Vec<_>>()).await;
        }
    }
    assert_eq!(f.count("parked").await, 0);
}

pub async fn a_drained_head_makes_the_next_row_of_its_key_due(f: Fixture) {
    let rows = vec![due("c1"), waiting("c1"), waiting("c1"), waiting("c2")];
    let order: Vec<_> = rows[..3].iter().map(|row| row.event_id).collect();
    park(&f.store, "worker", rows).await;
    let mut seen = Vec::new();
    while let [row] = &claim(&f.store, 32).await[..] {
        seen.push(row.event_id);
        assert_eq!(claim(&f.store, 32).await, [], "one at a time");
        assert_eq!(drain(&f.store, &[row.lease]).await, HashSet::from([row.lease.id]));
    }
    assert_eq!(seen, order);
    assert_eq!(f.count("parked").await, 1, "another key's is not touched");
}

pub async fn what_comes_after_a_lost_lease_changes_nothing(f: Fixture) {
    park(&f.store, "worker", vec![due("c1"), waiting("c1")]).await;
    let late = claim(&f.store, 1).await[0].lease;
    f.age(OVER).await;
    let holder = claim(&f.second().await, 1).await[0].lease;
    let before = f.count("parked WHERE attempts = 2 AND state = 'retrying' AND error_class IS NULL").await;
    assert_eq!(drain(&f.store, &[late]).await, HashSet::new());
    assert!(!release(&f.store, again(late, None)).await);
    let mut tx = f.store.lot.begin("worker").await.unwrap();
    let identity = Identity {
        lease: late,
        event_id: event_id(),
        order_id: order_id(),
        client_id: client("a"),
        event_type: "orders.created.v1".to_owned(),
    };
    assert_eq!(tx.identify(&[identity]).await.unwrap(), HashSet::new());
    tx.commit().await.unwrap();
    let after = f.count("parked WHERE attempts = 2 AND state = 'retrying' AND error_class IS NULL").await;
    assert_eq!((before, after, f.count("parked").await), (1, 1, 2));
    assert!(release(&f.store, again(holder, Some(Duration::ZERO))).await);
    assert!(!release(&f.store, again(holder, Some(Duration::ZERO))).await, "a release ends the lease too");
}

pub async fn a_released_row_is_due_again_after_its_wait(f: Fixture) {
    park(&f.store, "worker", vec![due("c1"), waiting("c1")]).await;
    let lease = claim(&f.store, 1).await[0].lease;
    assert!(release(&f.store, again(lease, Some(Duration::from_mins(10)))).await);
    assert_eq!(claim(&f.store, 32).await, []);
    let wait = f.store.lot.next_due("worker", &types()).await.unwrap().unwrap();
    assert!(wait > Duration::from_mins(9) && wait <= Duration::from_mins(10), "{wait:?}");
    let told = "parked WHERE state = 'retrying' AND error_class = 'transient' AND error_code IS NULL AND \
        error_message = '503' AND first_failed_at IS NOT NULL AND last_failed_at = first_failed_at AND leased_until IS NULL";
    assert_eq!(f.count(told).await, 1);
    f.age(Duration::from_mins(10)).await;
    assert_eq!(f.store.lot.next_due("worker", &types()).await.unwrap(), Some(Duration::ZERO));
    let row = &claim(&f.store, 32).await[0];
    assert_eq!((row.attempts, row.abandoned, row.first_failed_at), (2, false, Some(now())));
    let back = Release { uncounted: true, failure: None, ..again(row.lease, Some(Duration::ZERO)) };
    assert!(release(&f.store, back).await);
    assert_eq!(claim(&f.store, 32).await[0].attempts, 2, "an attempt that was not made does not count");
}

pub async fn a_dead_head_keeps_its_key_and_a_refused_one_lets_it_go(f: Fixture) {
    park(&f.store, "worker", vec![due("c1"), waiting("c1"), due("c2"), waiting("c2")]).await;
    let [one, two] = &claim(&f.store, 32).await[..] else { panic!("two heads") };
    assert!(release(&f.store, again(one.lease, None)).await);
    assert!(release(&f.store, Release { unblocks: true, ..again(two.lease, None) }).await);
    assert_eq!(f.count("parked WHERE state = 'dead' AND next_attempt_at IS NULL").await, 2);
    let next = claim(&f.store, 32).await;
    assert_eq!(next.iter().map(|row| &row.record_key[..]).collect::<Vec<_>>(), [b"c2"]);
    assert_eq!(
        f.store.lot.make_due("worker", &types(), None).await.unwrap().due,
        0,
        "what waits behind a dead head is not missed"
    );
}

pub async fn an_event_is_held_until_its_type_is_known(f: Fixture) {
    park(&f.store, "worker", vec![held("c1", "orders.created.v2"), waiting("c1"), waiting("c2")]).await;
    let make_due = async |types: &[String]| f.store.lot.make_due("worker", types, None).await.unwrap().due;
    assert_eq!(make_due(&types()).await, 1, "a head that was missed is due now");
    assert_eq!(claim(&f.store, 32).await.len(), 1);
    f.age(Duration::from_mins(20)).await;
    let oldest = async |types: &[String]| f.store.lot.oldest_held("worker", types).await.unwrap();
    assert!(oldest(&types()).await.unwrap() >= Duration::from_mins(20));
    let newer = [types(), vec!["orders.created.v2".to_owned()]].concat();
    assert_eq!(oldest(&newer).await, None);
    assert_eq!(make_due(&newer).await, 1);
    let lease = Claim { types: &newer, lease: LEASE, limit: 32 };
    // The older worker leaves the event alone although it is due.
    f.sql("DELETE FROM parked WHERE attempts > 0").await;
    assert_eq!(claim(&f.store, 32).await, []);
    assert_eq!(f.store.lot.next_due("worker", &types()).await.unwrap(), None);
    assert_eq!(f.store.lot.claim("worker", &lease).await.unwrap().len(), 1);
}

pub async fn a_row_takes_the_identity_that_was_read(f: Fixture) {
    park(&f.store, "worker", vec![ParkedEvent { blocks: false, order_id: None, ..due("c1") }]).await;
    let lease = claim(&f.store, 1).await[0].lease;
    let identity = Identity {
        lease,
        event_id: event_id(),
        order_id: order_id(),
        client_id: client("a"),
        event_type: "orders.created.v2".to_owned(),
    };
    let mut tx = f.store.lot.begin("worker").await.unwrap();
    assert!(tx.gate(&[entry(identity.event_id)]).await.unwrap().fresh.contains(&identity.event_id));
    assert_eq!(tx.identify(std::slice::from_ref(&identity)).await.unwrap(), HashSet::from([lease.id]));
    tx.commit().await.unwrap();
    f.age(OVER).await;
    let row = &claim(&f.store, 1).await[0];
    assert_eq!((row.event_id, row.order_id), (identity.event_id, Some(identity.order_id)));
}

pub async fn another_consumers_rows_are_not_touched(f: Fixture) {
    park(&f.store, "worker", vec![due("c1"), waiting("c2")]).await;
    let types = types();
    let lease = Claim { types: &types, lease: LEASE, limit: 32 };
    assert_eq!(f.store.lot.claim("other", &lease).await.unwrap(), []);
    assert_eq!(
        (f.store.lot.next_due("other", &types).await.unwrap(), f.store.lot.make_due("other", &types, None).await.unwrap().due),
        (None, 0)
    );
}

pub async fn a_missed_head_is_found_behind_another_consumers_head_of_the_key(f: Fixture) {
    let keys: Vec<String> = (0..1_000).map(|n| format!("k{n:04}")).collect();
    park(&f.store, "worker", keys.iter().map(|key| waiting(key)).collect()).await;
    f.sql("UPDATE parked SET consumer = 'another'").await;
    // The last key of a step has a head of either consumer.
    park(&f.store, "worker", vec![waiting("k0999")]).await;
    let mut after = None;
    let mut due = 0;
    loop {
        let made = f.store.lot.make_due("worker", &types(), after.as_ref()).await.unwrap();
        due += made.due;
        after = made.after;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(due, 1);
}

pub async fn a_lease_from_before_a_restore_changes_nothing(f: Fixture) {
    park(&f.store, "worker", vec![due("c1"), waiting("c1")]).await;
    let old = claim(&f.store, 1).await[0].lease;
    // After a restore of an older copy of the database, another event gets the same id.
    let other = event_id();
    let id = if f.is_distributed() { format!("'{other}'") } else { format!("x'{}'", other.0.simple()) };
    f.sql(&format!("UPDATE parked SET event_id = {id} WHERE id = {}", old.id)).await;
    let as_it_is = "parked WHERE state = 'retrying' AND attempts = 1 AND leased_until IS NOT NULL AND error_class IS NULL";
    assert_eq!(drain(&f.store, &[old]).await, HashSet::new());
    assert!(!release(&f.store, again(old, None)).await);
    let mut tx = f.store.lot.begin("worker").await.unwrap();
    let identity = Identity {
        lease: old,
        event_id: event_id(),
        order_id: order_id(),
        client_id: client("a"),
        event_type: "orders.created.v1".to_owned(),
    };
    assert_eq!(tx.identify(&[identity]).await.unwrap(), HashSet::new());
    tx.commit().await.unwrap();
    assert_eq!((f.count(as_it_is).await, f.count("parked").await), (1, 2), "the other event stands there as before");
    assert_eq!(drain(&f.store, &[Lease { event_id: other, ..old }]).await, HashSet::from([old.id]));
}
