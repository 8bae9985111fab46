//! What a statement of PostgreSQL reads must not depend on when its plan was made: of an empty table, a scan seems cheaper than ten
//! look-ups, and a plan is kept.

use minishop_core::idempotency::{Fingerprint, IdempotencyKey};
use minishop_core::ids::{ClientId, EventId, OrderId};
use minishop_core::order::Status;
use minishop_store::{AnnouncedBatch, AnnouncedEvent, InboxEntry, Role, Store, Transition};
use minishop_testkit::database::Engine;
use minishop_testkit::rows::{brief, client, event, key, now};
use uuid::Uuid;

use crate::support::{Fixture, on};

/// Orders in the table.
const ORDERS: i64 = 5_000;
/// Orders that a statement is for.
const ASKED: u128 = 10;
/// Limit of rows and index entries read for these.
const LOOKED_AT: i64 = 500;

fn id(n: u128) -> OrderId {
    OrderId(Uuid::from_u128(0x7000_8000_0000_0000_0000 + n))
}

fn announcement(n: u128) -> EventId {
    EventId(Uuid::from_u128(0x7000_9000_0000_0000_0000 + n))
}

fn asked() -> Vec<OrderId> {
    (1..=ASKED).map(id).collect()
}

fn keys() -> Vec<(ClientId, IdempotencyKey)> {
    (1..=ASKED).map(|n| (client("a"), key(&format!("k{n}")))).collect()
}

fn transitions() -> Vec<Transition> {
    let of = |n| Transition {
        order_id: id(n),
        expected_version: 1,
        to: Status::Processed,
        at: now(),
        cause: announcement(n),
        event: brief(event(Role::Worker, "c1", id(n), 2)),
    };
    (1..=ASKED).map(of).collect()
}

async fn fill(f: &Fixture) {
    let filled = "INSERT INTO orders (order_id, client_id, idempotency_key, fingerprint, customer_id, status, version, total_minor, \
        items, correlation_id, created_event_id) SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'a', 'k' || n, \
        decode(repeat('07', 32), 'hex'), 'c1', 'created', 1, 2100, '[]', 'corr-1', \
        ('00000000-0000-7000-9000-' || lpad(to_hex(n), 12, '0'))::uuid FROM generate_series(1, ";
    f.sql(&format!("{filled}{ORDERS}) n")).await;
    let told = "INSERT INTO timeline (order_id, version, kind, at, cause) \
        SELECT order_id, 1, 'created', created_at, created_event_id FROM orders";
    f.sql(told).await;
}

/// Counts what was read: rows of the tables, and entries of their indexes.
async fn looked_at(f: &Fixture) -> i64 {
    f.number(
        "SELECT (SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_user_tables \
         WHERE relname IN ('orders', 'timeline', 'inbox', 'outbox_event'))::bigint \
         + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname IN ('orders', 'timeline', 'inbox', 'outbox_event'))::bigint",
    )
    .await
}

async fn reads_little(f: Fixture, what: &str, ask: impl AsyncFn(&Store) -> usize) {
    // Every plan is generic from the start, as a plan is after some use.
    f.sql("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET plan_cache_mode = force_generic_plan', current_database()); END $$")
        .await;
    for table in ["orders", "timeline", "inbox", "outbox_event"] {
        f.sql(&format!("ALTER TABLE {table} SET (autovacuum_enabled = off)")).await;
        f.sql(&format!("VACUUM ANALYZE {table}")).await;
    }
    let process = f.second().await;
    assert_eq!(ask(&process).await, 0, "the plans are made");
    fill(&f).await;
    let before = looked_at(&f).await;
    assert_eq!(ask(&process).await, usize::try_from(ASKED).unwrap());
    // A server process reports its statistics when it ends.
    drop(process);
    f.left_alone().await;
    let looked_at = looked_at(&f).await - before;
    assert!(looked_at < LOOKED_AT, "{what} looked at {looked_at} of {ORDERS} orders");
}

macro_rules! whenever_the_plan_was_made {
    ($($sentence:ident: $ask:expr;)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $sentence() {
            on(Engine::Postgres, async |f| reads_little(f, stringify!($sentence), $ask).await).await;
        }
    )+};
}

whenever_the_plan_was_made! {
    orders_of_brief_rows_are_looked_up: async |store: &Store| store.outbox.past_orders(&asked()).await.unwrap().len();
    orders_of_keys_are_looked_up: async |store: &Store| store.orders.by_keys(&keys()).await.unwrap().len();
    watched_orders_are_looked_up: async |store: &Store| {
        let known: Vec<_> = asked().into_iter().map(|id| (id, 0)).collect();
        store.orders.changed(&known).await.unwrap().len()
    };
    orders_of_a_batch_are_looked_up: async |store: &Store| {
        let mut tx = store.inbox.begin("worker").await.unwrap();
        let entry = |t: &Transition| InboxEntry { event_id: t.cause, data_sha: [1; 32], order_id: Some(t.order_id) };
        tx.gate(&transitions().iter().map(entry).collect::<Vec<_>>()).await.unwrap();
        tx.orders(&asked(), &keys()).await.unwrap();
        tx.apply(&transitions()).await.unwrap().len()
    };
    announced_orders_are_looked_up: async |store: &Store| {
        let (transitions, client) = (transitions(), client("a"));
        let events = transitions.iter().map(|transition| AnnouncedEvent {
            data_sha: &[5; 32],
            record_key: b"c1",
            client_id: &client,
            fingerprint: &Fingerprint([7; 32]),
            transition,
        });
        let batch = AnnouncedBatch { events: events.collect(), positions: &[], seen: &[] };
        store.inbox.settle_announced("worker", &batch).await.unwrap().map_or(0, |numbers| numbers.len())
    };
}
