//! A lot with twenty thousand waiting events, of few keys and of many. What a statement reads must not grow with the
//! backlog, and in PostgreSQL it must not depend on the planner's statistics or their age.

use bytes::Bytes;
use minishop_core::parking::State;
use minishop_store::{Claim, Claimed, Lease, Release, Store};
use minishop_testkit::database::Engine;

use crate::parking::LEASE;
use crate::support::{Fixture, on};

/// Waiting events.
const WAITING: i64 = 20_000;
/// Limit of rows and index entries read by all steps of a pass: a sweep reads a thousand keys, each other step a few rows
/// for each of 32 leases.
const LOOKED_AT: i64 = WAITING / 2;

/// What PostgreSQL's planner knows of the table when it makes its plans.
#[derive(Debug, Clone, Copy)]
enum Knows {
    /// Nothing: the table was never analysed.
    Nothing,
    /// It was empty, without a page.
    Empty,
    /// It was empty, but had pages that were full before.
    Emptied,
    /// Everything that waits.
    All,
}

/// Inserts events: the first of each key is due, the others wait behind it.
async fn fill(f: &Fixture, keys: i64) {
    let numbers = format!("WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < {WAITING})");
    let (key, id, time, raw) = if f.is_distributed() {
        ("decode(lpad(to_hex(n % {keys}), 8, '0'), 'hex')", "gen_random_uuid()", "clock_timestamp()", "'\\x00'::bytea")
    } else {
        ("CAST(printf('%08d', n % {keys}) AS BLOB)", "randomblob(16)", "0", "x'00'")
    };
    let key = key.replace("{keys}", &keys.to_string());
    let parked_at = if f.is_distributed() { ("", "") } else { (", parked_at", ", 0") };
    f.sql(&format!(
        "INSERT INTO parked (consumer, record_key, blocks, state, event_id, topic, partition, source_offset, raw_value, \
         raw_headers, next_attempt_at{}) {numbers} SELECT 'worker', {key}, true, CASE WHEN n < {keys} THEN 'retrying' \
         ELSE 'waiting' END, {id}, 'orders.created', 0, n, {raw}, {raw}, CASE WHEN n < {keys} THEN {time} END{} FROM numbers",
        parked_at.0, parked_at.1
    ))
    .await;
}

/// Runs every step of the lot and of the stream that reads the lot, once; returns the claimed events.
async fn pass(store: &Store) -> Vec<Claimed> {
    let types = ["orders.created".to_owned()];
    let claimed = store.lot.claim("worker", &Claim { types: &types, lease: LEASE, limit: 32 }).await.unwrap();
    let leases: Vec<Lease> = claimed.iter().map(|row| row.lease).collect();
    let keys: Vec<Bytes> = claimed.iter().map(|row| row.record_key.clone()).collect();
    let (drained, kept) = leases.split_at(leases.len() / 2);
    let release = |lease: &Lease| Release { lease: *lease, again_in: None, uncounted: false, unblocks: true, failure: None };
    let mut tx = store.lot.begin("worker").await.unwrap();
    assert_eq!(tx.drain(drained).await.unwrap().len(), drained.len());
    assert_eq!(tx.release(&kept.iter().map(release).collect::<Vec<_>>()).await.unwrap().len(), kept.len());
    tx.commit().await.unwrap();
    let mut tx = store.inbox.begin("worker").await.unwrap();
    tx.parked_keys(&keys).await.unwrap();
    tx.commit().await.unwrap();
    store.lot.next_due("worker", &types).await.unwrap();
    store.lot.oldest_held("worker", &types).await.unwrap();
    store.lot.make_due("worker", &types, None).await.unwrap();
    claimed
}

pub async fn twenty_thousand_waiting_events_are_worked_off_key_by_key_in_order(f: Fixture) {
    for keys in [6, WAITING] {
        f.sql("DELETE FROM parked").await;
        fill(&f, keys).await;
        for _ in 0..3 {
            let claimed = pass(&f.store).await;
            assert_eq!(claimed.len(), usize::try_from(keys.min(32)).unwrap(), "the head of each key");
        }
        let counts = f.store.reads.parked_counts().await.unwrap();
        let gone = 3 * keys.min(32);
        assert_eq!(counts[&State::Dead], gone - gone / 2);
        // Heads that nobody made due, behind the removed ones.
        f.sql("UPDATE parked SET next_attempt_at = NULL, state = 'waiting' WHERE state <> 'dead'").await;
        let types = ["orders.created".to_owned()];
        let (mut due, mut after) = (0, None);
        loop {
            let made = f.store.lot.make_due("worker", &types, after.as_ref()).await.unwrap();
            due += made.due;
            after = made.after;
            if after.is_none() {
                break;
            }
        }
        let heads = "(SELECT record_key, min(id) FROM parked WHERE blocks GROUP BY record_key) AS heads";
        assert_eq!(i64::try_from(due).unwrap(), f.count(heads).await, "each head, and nothing else");
        assert_eq!(f.count("parked WHERE next_attempt_at IS NOT NULL").await, i64::try_from(due).unwrap());
    }
}

/// Counts what was read in the lot: rows of the table, and entries of its indexes.
async fn looked_at(f: &Fixture) -> i64 {
    f.number(
        "SELECT (SELECT sum(seq_tup_read + idx_tup_fetch) FROM pg_stat_user_tables WHERE relname = 'parked')::bigint \
         + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'parked')::bigint",
    )
    .await
}

async fn a_pass_looks_at_little(f: Fixture, keys: i64, knows: Knows) {
    f.sql("ALTER TABLE parked SET (autovacuum_enabled = off)").await;
    // Every plan is generic from the start, as a plan is after some use.
    f.sql("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET plan_cache_mode = force_generic_plan', current_database()); END $$")
        .await;
    match knows {
        Knows::Nothing => {}
        Knows::Empty => drop(f.sql("VACUUM ANALYZE parked").await),
        Knows::Emptied => {
            fill(&f, keys).await;
            for sql in ["ANALYZE parked", "DELETE FROM parked", "VACUUM (TRUNCATE off, ANALYZE) parked"] {
                f.sql(sql).await;
            }
        }
        Knows::All => {
            fill(&f, keys).await;
            f.sql("VACUUM ANALYZE parked").await;
        }
    }
    let worker = f.second().await;
    if !matches!(knows, Knows::All) {
        assert_eq!(pass(&worker).await, [], "the plans are made");
        fill(&f, keys).await;
    }
    let before = looked_at(&f).await;
    assert_eq!(pass(&worker).await.len(), usize::try_from(keys.min(32)).unwrap());
    // A server process reports its statistics when it ends.
    drop(worker);
    f.left_alone().await;
    let looked_at = looked_at(&f).await - before;
    assert!(looked_at < LOOKED_AT, "a pass over {WAITING} events of {keys} keys looked at {looked_at}, with {knows:?} known");
}

macro_rules! whatever_the_planner_knows {
    ($($sentence:ident: $keys:expr, $knows:ident;)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $sentence() {
            on(Engine::Postgres, async |f| a_pass_looks_at_little(f, $keys, Knows::$knows).await).await;
        }
    )+};
}

whatever_the_planner_knows! {
    a_pass_over_six_keys_looks_at_little_though_nothing_is_known_of_the_table: 6, Nothing;
    a_pass_over_six_keys_looks_at_little_with_plans_of_the_empty_table: 6, Empty;
    a_pass_over_six_keys_looks_at_little_with_plans_of_the_emptied_table: 6, Emptied;
    a_pass_over_six_keys_looks_at_little_with_all_known: 6, All;
    a_pass_over_many_keys_looks_at_little_though_nothing_is_known_of_the_table: WAITING, Nothing;
    a_pass_over_many_keys_looks_at_little_with_plans_of_the_empty_table: WAITING, Empty;
    a_pass_over_many_keys_looks_at_little_with_plans_of_the_emptied_table: WAITING, Emptied;
    a_pass_over_many_keys_looks_at_little_with_all_known: WAITING, All;
}
