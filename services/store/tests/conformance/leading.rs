//! Leases, locks and privileges: only PostgreSQL has them.

use std::time::{Duration, Instant};

use minishop_store::postgres;
use minishop_store::{Acknowledged, Leadership, Led, Renewal, Role, Store};
use minishop_testkit::database::{Engine, settings};
use minishop_testkit::rows::{all_shards, order_of, orders};
use tokio::task::JoinSet;

use crate::support::{Fixture, on};

/// Requests leases; returns the shards, and whether others write.
async fn lead(store: &Store, owner: &str, roles: &[Role], renewal: &Renewal) -> Leadership {
    store.outbox.lead(owner, roles, renewal).await.unwrap()
}

fn again(shards: &[i16]) -> Renewal {
    Renewal { anew: shards.to_vec(), ..Renewal::default() }
}

fn numbers(leadership: &Leadership) -> Vec<i16> {
    leadership.shards.iter().map(|led| led.shard).collect()
}

fn epochs(leadership: &Leadership) -> Vec<i64> {
    leadership.shards.iter().map(|led| led.epoch).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_are_shared_among_live_processes() {
    on(Engine::Postgres, async |f| {
        let lead_finished = async |owner: &str, roles: &[Role], finished: &[i16]| {
            let renewal = Renewal { finished: finished.to_vec(), ..Renewal::default() };
            let leadership = lead(&f.store, owner, roles, &renewal).await;
            let surplus: Vec<i16> = leadership.shards.iter().filter(|led| led.surplus).map(|led| led.shard).collect();
            (numbers(&leadership), surplus, leadership.others_write)
        };
        let lead = async |owner: &str, roles: &[Role]| lead_finished(owner, roles, &[]).await;
        let none = Vec::<i16>::new;
        assert_eq!(lead("a", &[Role::Api]).await, (all_shards(), none(), false), "nobody else plays the worker");
        assert_eq!(lead("b", &[Role::Api]).await, (none(), none(), true), "a live lease is never taken");
        assert_eq!(lead("a", &[Role::Api]).await, (all_shards(), vec![2, 3], true), "the surplus is kept until it is finished");
        assert_eq!(lead("b", &[Role::Api]).await, (none(), none(), true), "and not taken before");
        let shards = vec![0, 1, 2, 16, 17, 18, 19];
        assert_eq!(
            lead_finished("a", &[Role::Api], &[1, 3]).await,
            (shards, vec![2], true),
            "only what is surplus is given back"
        );
        assert_eq!(lead("b", &[Role::Api]).await, (vec![3], none(), true));
        assert_eq!(lead_finished("a", &[Role::Api], &[2]).await, (vec![0, 1, 16, 17, 18, 19], none(), true));
        assert_eq!(lead("b", &[Role::Api]).await, (vec![2, 3], none(), true), "its share");
        let workers = vec![16, 17, 18, 19];
        assert_eq!(lead("w", &[Role::Worker]).await, (none(), none(), false));
        assert_eq!(lead("a", &[Role::Api]).await, (vec![0, 1, 16, 17, 18, 19], workers.clone(), true), "of another role");
        assert_eq!(lead_finished("a", &[Role::Api], &workers).await, (vec![0, 1], none(), true), "given back to the worker");
        assert_eq!(lead("w", &[Role::Worker]).await, (workers, none(), false));
        f.age(Duration::from_secs(11)).await;
        assert_eq!(lead("c", &[Role::Api]).await, (all_shards(), none(), false), "expired leases are taken");
        f.store.outbox.release("c").await.unwrap();
        assert_eq!(lead("a", &[Role::Api]).await, (all_shards(), none(), false), "and released ones at once");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_is_renewed_keeps_its_epoch_and_any_other_begins_one() {
    on(Engine::Postgres, async |f| {
        let lead = async |owner: &str, shards: &[i16]| lead(&f.store, owner, &Role::ALL, &again(shards)).await;
        let first = epochs(&lead("a", &[]).await);
        assert_eq!(epochs(&lead("a", &[]).await), first, "a renewal");
        let taken = lead("a", &[1, 17]).await;
        let more: Vec<_> = all_shards().iter().zip(&first).map(|(n, epoch)| epoch + i64::from([1, 17].contains(n))).collect();
        assert_eq!(epochs(&taken), more, "asked for anew");
        f.age(Duration::from_secs(11)).await;
        let expired: Vec<_> = more.iter().map(|epoch| epoch + 1).collect();
        assert_eq!(epochs(&lead("a", &[]).await), expired, "run out, and nobody else has come by");
        f.store.outbox.release("a").await.unwrap();
        let another: Vec<_> = expired.iter().map(|epoch| epoch + 1).collect();
        assert_eq!(epochs(&lead("b", &[]).await), another);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_lease_is_anothers_acknowledges_nothing() {
    on(Engine::Postgres, async |f| {
        f.accept(&orders("a", 0..9)).await;
        let shard = f.outbox().await[0].event.shard;
        let first = f.published("a", shard, 3).await;
        let acknowledge = async |owner: &str, asked: &Acknowledged| {
            f.store.outbox.acknowledge(owner, std::slice::from_ref(asked)).await.unwrap()
        };
        assert!(!acknowledge("b", &first).await, "another never led it");
        let anew = Acknowledged { epoch: first.epoch + 1, ..first.clone() };
        assert!(!acknowledge("a", &anew).await, "an epoch that is not begun");
        lead(&f.store, "a", &Role::ALL, &again(&[shard])).await;
        assert!(!acknowledge("a", &first).await, "an epoch that is over");
        assert!(acknowledge("a", &anew).await);
        let before = f.outbox().await;
        assert_eq!(before.len(), 7);
        f.age(Duration::from_secs(11)).await;
        let second = f.published("b", shard, 5).await;
        let old = Acknowledged { epoch: anew.epoch, ..second.clone() };
        assert!(!acknowledge("a", &old).await, "its lease is another's");
        assert!(!acknowledge("b", &old).await, "in another epoch");
        assert!(!acknowledge("a", &second).await, "under the epoch of another");
        assert_eq!((f.outbox().await, f.acknowledged().await[&shard]), (before, 3));
        assert!(acknowledge("b", &second).await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_is_given_back_stands_where_it_was_left() {
    on(Engine::Postgres, async |f| {
        f.accept(&orders("a", 0..9)).await;
        let shard = f.outbox().await[0].event.shard;
        assert!(f.acknowledge("a", shard, 4).await);
        f.store.outbox.release("a").await.unwrap();
        let led = lead(&f.store, "b", &Role::ALL, &Renewal::default()).await.shards;
        assert!(led.iter().any(|led| matches!(led, Led { shard: n, acknowledged: 4, .. } if *n == shard)), "{led:?}");
    })
    .await;
}

/// Connects as a role with all privileges that a process needs, and without ownership.
async fn stranger(f: &Fixture) -> (String, Store) {
    let (role, url) = (format!("stranger_{}", uuid::Uuid::from_u128(rand::random()).simple()), f.url());
    f.sql(&format!("CREATE ROLE {role} LOGIN")).await;
    f.sql(&format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}")).await;
    let rest = url.split_once("://").unwrap().1;
    let place = rest.split_once('@').map_or(rest, |(_, place)| place);
    let store = postgres::connect(&format!("postgres://{role}@{place}"), &settings(false)).await.unwrap();
    (role, store)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_does_not_own_the_outbox_may_not_vacuum_it_and_relays_all_the_same() {
    on(Engine::Postgres, async |f| {
        let (role, store) = stranger(&f).await;
        let batch = orders("a", 0..5);
        assert_eq!(store.orders.intake().await.unwrap().accept(&batch).await.unwrap().len(), 5);
        let lead = lead(&store, "a", &Role::ALL, &Renewal::default()).await;
        let last = f.outbox().await.pop().unwrap();
        let epoch = lead.shards.iter().find(|led| led.shard == last.event.shard).unwrap().epoch;
        let events = batch.iter().map(|order| order.event.event_id).collect();
        let published = Acknowledged { shard: last.event.shard, epoch, low: 0, events };
        assert!(store.outbox.acknowledge("a", &[published]).await.unwrap());
        assert!(!store.outbox.vacuum().await.unwrap());
        assert!(f.store.outbox.vacuum().await.unwrap(), "its owner may");
        drop(store);
        f.sql(&format!("DROP OWNED BY {role}")).await;
        f.sql(&format!("DROP ROLE {role}")).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_for_a_shard_is_no_conflict_between_orders() {
    const HELD: Duration = Duration::from_secs(3);
    on(Engine::Postgres, async |f| {
        let held = f.hold_beside("SELECT pg_advisory_xact_lock(1297305410, 0)").await.unwrap();
        let began = Instant::now();
        let mut writers = JoinSet::new();
        for n in 0..3 {
            let batch: Vec<_> =
                (0..40).map(|k| order_of(&format!("client-{n}"), &format!("k{k:03}"), &format!("c{k}"))).collect();
            let mut intake = f.store.orders.intake().await.unwrap();
            writers.spawn(async move { intake.accept(&batch).await.map(|made| made.len()) });
        }
        tokio::time::sleep(HELD).await; // sleeps: longer than any patience with a key's lock
        held.release().await;
        while let Some(outcome) = writers.join_next().await {
            assert_eq!(outcome.unwrap().unwrap(), 40, "a batch is neither refused nor told to come again");
        }
        assert!(began.elapsed() >= HELD);
        assert_eq!(f.pending().await.len(), 120);
    })
    .await;
}
