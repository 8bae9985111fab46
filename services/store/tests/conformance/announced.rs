//! A batch that finds everything as announced, settled in one statement. PostgreSQL only: SQLite has no such statement.

use minishop_core::idempotency::Fingerprint;
use minishop_core::ids::ClientId;
use minishop_core::parking::State;
use minishop_core::position::Position;
use minishop_store::{AnnouncedBatch, AnnouncedEvent, Brief, InboxEntry, Journal, NewOrder, Store, StoreError, Transition, Why};

use minishop_testkit::database::Engine;
use minishop_testkit::lot::parked;
use minishop_testkit::rows::{client, event_id, order, order_of};

use crate::support::{Fixture, on, processed};

const SHA: [u8; 32] = [5; 32];

/// A batch, and what its events say of their orders.
#[derive(Debug, Clone)]
struct Batch {
    transitions: Vec<Transition>,
    client: ClientId,
    fingerprint: Fingerprint,
    positions: Vec<Position>,
    seen: Vec<Position>,
}

impl Batch {
    fn of(orders: &[NewOrder]) -> Self {
        Self {
            transitions: orders.iter().map(processed).collect(),
            client: client("a"),
            fingerprint: Fingerprint([7; 32]),
            positions: vec![at(0, 20), at(1, 30)],
            seen: vec![at(0, 10)],
        }
    }

    async fn settle(&self, store: &Store) -> Option<Vec<i64>> {
        store.inbox.settle_announced("worker", &self.announced()).await.unwrap()
    }

    fn announced(&self) -> AnnouncedBatch<'_> {
        let events = self.transitions.iter().map(|transition| AnnouncedEvent {
            data_sha: &SHA,
            record_key: &transition.event.record_key,
            client_id: &self.client,
            fingerprint: &self.fingerprint,
            transition,
        });
        AnnouncedBatch { events: events.collect(), positions: &self.positions, seen: &self.seen }
    }

    /// Settles the batch step by step.
    async fn take_the_steps(&self, store: &Store) -> Result<Vec<i64>, StoreError> {
        let mut tx = store.inbox.begin("worker").await?;
        let entry = |t: &Transition| InboxEntry { event_id: t.cause, data_sha: SHA, order_id: Some(t.order_id) };
        tx.gate(&self.transitions.iter().map(entry).collect::<Vec<_>>()).await?;
        tx.apply(&self.transitions).await?;
        let events = self.transitions.iter().map(|transition| transition.event.clone()).collect();
        let (positions, seen) = (self.positions.clone(), self.seen.clone());
        let numbers = tx.record(&Journal { events, positions, seen, ..Journal::default() }).await?;
        tx.commit().await?;
        Ok(numbers)
    }
}

fn at(partition: i32, next_offset: i64) -> Position {
    Position { topic: "orders.created".into(), partition, next_offset }
}

/// Accepts orders of several customers and stores the positions before them, as an earlier batch would.
async fn prepared(f: &Fixture, orders: &[NewOrder]) {
    f.accept(orders).await;
    let mut tx = f.store.inbox.begin("worker").await.unwrap();
    tx.record(&Journal { positions: vec![at(0, 10), at(1, 10)], ..Journal::default() }).await.unwrap();
    tx.commit().await.unwrap();
}

fn some_orders() -> Vec<NewOrder> {
    (0..40).map(|n| order_of("a", &format!("k{n:03}"), &format!("customer-{}", n % 7))).collect()
}

/// Reads everything that a batch may write, without times and ids that the database gives.
async fn content(f: &Fixture) -> Vec<(String,)> {
    let outbox = "SELECT shard, number, event_id, topic, record_key, order_id, order_version, payload, headers, set_aside \
        FROM outbox_event ORDER BY shard, number";
    let queries = [
        "SELECT consumer, event_id, data_sha, order_id FROM inbox ORDER BY event_id",
        "SELECT order_id, status, version, settled_event_id FROM orders ORDER BY order_id",
        "SELECT order_id, version, kind, at, cause, detail FROM timeline ORDER BY id",
        "SELECT * FROM consumed ORDER BY partition",
        outbox,
    ];
    let mut rows = Vec::new();
    for query in queries {
        rows.extend(f.rows::<(String,)>(&format!("SELECT q::text FROM ({query}) q")).await);
    }
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_statement_leaves_what_the_steps_leave() {
    on(Engine::Postgres, async |one: Fixture| {
        on(Engine::Postgres, async |other: Fixture| {
            let orders = some_orders();
            let (first, second) = orders.split_at(25);
            for f in [&one, &other] {
                prepared(f, &orders).await;
            }
            let earlier = Batch::of(first);
            // Positions never go down, whichever batch commits first.
            let later = Batch { positions: vec![at(1, 25)], seen: vec![at(1, 30)], ..Batch::of(second) };
            for batch in [&earlier, &later] {
                let numbers = batch.settle(&one.store).await.expect("everything is as announced");
                assert_eq!(numbers, batch.take_the_steps(&other.store).await.unwrap());
            }
            assert_eq!(content(&one).await, content(&other).await);
            let announced: Vec<_> = one.pending().await.into_iter().filter(|row| row.event.order_version == Some(2)).collect();
            assert_eq!(announced.len(), 40);
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_differs_sends_the_batch_to_the_steps_and_nothing_is_written() {
    on(Engine::Postgres, async |f: Fixture| {
        let orders = some_orders();
        prepared(&f, &orders).await;
        let good = Batch::of(&orders[..20]);
        let changed = |change: &dyn Fn(&mut Transition)| {
            let mut batch = good.clone();
            change(&mut batch.transitions[7]);
            batch
        };
        let before = content(&f).await;
        let differing = [
            ("another version", changed(&|t| t.expected_version = 2)),
            ("another event announced it", changed(&|t| t.cause = event_id())),
            ("nobody knows the order", changed(&|t| t.order_id = order("a", "new").head.order_id)),
            ("another client", Batch { client: client("b"), ..good.clone() }),
            ("other content", Batch { fingerprint: Fingerprint([8; 32]), ..good.clone() }),
            ("a partition that was never stored", Batch { positions: vec![at(0, 20), at(2, 1)], ..good.clone() }),
            ("a store that went back", Batch { seen: vec![at(0, 11)], ..good.clone() }),
        ];
        for (what, batch) in differing {
            assert_eq!(batch.settle(&f.store).await, None, "{what}");
            assert_eq!(content(&f).await, before, "{what}");
        }

        // One event is known already, as a copy.
        let mut tx = f.store.inbox.begin("worker").await.unwrap();
        let known = good.transitions[7].cause;
        tx.gate(&[InboxEntry { event_id: known, data_sha: SHA, order_id: None }]).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(good.settle(&f.store).await, None, "a copy");
        f.sql("DELETE FROM inbox").await;

        // An order has changed meanwhile.
        let victim = processed(&orders[7]);
        f.store.orders.cancels().await.unwrap().cancel(&victim, "{}").await.unwrap().expect("it passes");
        let cancelled = content(&f).await;
        assert_eq!(good.settle(&f.store).await, None, "a cancelled order");
        assert_eq!(content(&f).await, cancelled);

        // An earlier event of a key waits in the lot.
        let rest = Batch::of(&orders[20..]);
        let mut tx = f.store.inbox.begin("worker").await.unwrap();
        let waiting = ["customer-3", "a key of nobody"].map(|key| parked(key, State::Retrying, true));
        tx.record(&Journal { parked: waiting.into(), ..Journal::default() }).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(rest.settle(&f.store).await, None, "a parked key");
        assert_eq!(content(&f).await, cancelled);
        // What blocks nothing, or waits for another consumer, stops nothing.
        f.sql("UPDATE parked SET blocks = false WHERE record_key = 'customer-3'").await;
        f.sql(
            "INSERT INTO parked (consumer, record_key, blocks, state, event_id, topic, partition, source_offset, raw_headers) \
            VALUES ('another', 'customer-3', true, 'waiting', gen_random_uuid(), 't', 0, 0, '')",
        )
        .await;
        assert_eq!(rest.settle(&f.store).await.map(|numbers| numbers.len()), Some(20));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_two_workers_settle_at_once_is_settled_once() {
    on(Engine::Postgres, async |f: Fixture| {
        let orders = some_orders();
        prepared(&f, &orders).await;
        let (second, batch) = (f.second().await, Batch::of(&orders));
        let mut backwards = batch.clone();
        backwards.transitions.reverse();
        let (one, other) = tokio::join!(batch.settle(&f.store), backwards.settle(&second));
        assert_eq!([one, other].iter().flatten().count(), 1);
        assert_eq!((f.count("inbox").await, f.count("timeline").await, f.count("outbox_event").await), (40, 40, 80));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_cannot_be_stored_is_blamed_on_the_batch() {
    on(Engine::Postgres, async |f: Fixture| {
        let orders = some_orders();
        prepared(&f, &orders).await;
        let mut batch = Batch::of(&orders);
        batch.transitions[3].event.brief = Some(Brief { trace: Some("\0".to_owned()) });
        let refused = f.store.inbox.settle_announced("worker", &batch.announced()).await;
        assert!(matches!(refused, Err(StoreError::Fail { why: Why::ValueRefused, .. })), "{refused:?}");
        assert_eq!(f.count("inbox").await, 0);
        batch.transitions[3] = processed(&orders[3]);
        assert!(batch.settle(&f.store).await.is_some(), "the next call has a connection that works");
    })
    .await;
}

/// A connection that was lost while nobody used it is replaced before the statement, whose outcome would be unknown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_was_lost_while_idle_is_replaced() {
    on(Engine::Postgres, async |f: Fixture| {
        let orders = some_orders();
        prepared(&f, &orders).await;
        f.lose_idle_connections().await;
        assert!(Batch::of(&orders).settle(&f.store).await.is_some());
    })
    .await;
}

#[tokio::test]
async fn sqlite_has_no_such_statement() {
    on(Engine::Sqlite, async |f: Fixture| {
        assert!(!f.store.inbox.settles_announced());
        assert_eq!(Batch::of(&[order("a", "k")]).settle(&f.store).await, None);
    })
    .await;
}
