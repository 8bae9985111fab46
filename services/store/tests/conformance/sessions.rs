//! Sessions of a PostgreSQL store: durability, and how long their locks last if their process is stopped.

use std::time::{Duration, Instant};

use minishop_core::order::Status;
use minishop_store::{Acknowledged, ConsumerTx, Renewal, Role, StoreError};
use minishop_testkit::database::Engine;
use minishop_testkit::rows::{order, orders};
use sqlx::{Connection as _, PgConnection};

use crate::support::{Fixture, entry, on, processed};

/// Adds triggers that record the durability of each change.
async fn watched(f: &Fixture) {
    f.sql("CREATE TABLE seen (what text, durability text)").await;
    f.sql(
        "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         INSERT INTO seen VALUES (TG_TABLE_NAME || ' ' || lower(TG_OP), current_setting('synchronous_commit')); \
         RETURN coalesce(NEW, OLD); END $$",
    )
    .await;
    for table in ["orders", "outbox_event", "relay_owner", "outbox_shard", "inbox", "consumed", "audit"] {
        let sql =
            format!("CREATE TRIGGER tell BEFORE INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION tell()");
        f.sql(&sql).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_but_the_relays_deletes_is_committed_without_waiting_for_the_disk() {
    on(Engine::Postgres, async |f: Fixture| {
        watched(&f).await;
        let made = order("a", "k");
        f.accept(&[made.clone(), order("a", "l"), order("a", "m"), order("a", "n")]).await;
        let rows = f.pending().await;
        let mut settlement = f.store.inbox.begin("worker").await.unwrap();
        settlement.gate(&[entry(made.event.event_id)]).await.unwrap();
        settlement.commit().await.unwrap();
        for row in &rows[..3] {
            // The same connections serve durable and lazy commits in turn.
            let led = f.store.outbox.lead("one", &[Role::Api], &Renewal::default()).await.unwrap().shards;
            let led = led.iter().find(|led| led.shard == row.event.shard).unwrap();
            let events = vec![row.event.event_id];
            let published = Acknowledged { shard: led.shard, epoch: led.epoch, low: led.acknowledged, events };
            assert!(f.store.outbox.acknowledge("one", &[published]).await.unwrap());
        }
        f.store.outbox.release("one").await.unwrap();
        assert_eq!(f.store.housekeeping.forget_settled("worker", Duration::ZERO, 10).await.unwrap(), 1);
        let lowered = "seen WHERE durability <> 'on' AND what NOT IN ('outbox_event delete', 'outbox_shard update')";
        assert_eq!(f.count(lowered).await, 0);
        for what in
            ["orders insert", "outbox_event insert", "relay_owner insert", "outbox_shard update", "inbox insert", "inbox delete"]
        {
            assert!(f.count(&format!("seen WHERE what = '{what}'")).await > 0, "{what} was not seen");
        }
        assert_eq!(f.count("seen WHERE what = 'outbox_event delete' AND durability = 'off'").await, 2, "which may be done again");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_stops_before_its_commit_holds_others_up_for_three_seconds_at_most() {
    on(Engine::Postgres, async |f: Fixture| {
        let made = order("a", "k");
        f.accept(std::slice::from_ref(&made)).await;
        // Each kind of transaction with several statements; it then does nothing, like a process that is stopped.
        for lot in [false, true] {
            let mut stopped: Box<dyn ConsumerTx> =
                if lot { f.store.lot.begin("worker").await.unwrap() } else { f.store.inbox.begin("worker").await.unwrap() };
            let passed = stopped.apply(&[processed(&made)]).await.unwrap();
            assert_eq!(passed.len(), 1, "it holds the order");
            let (began, mut other) = (Instant::now(), PgConnection::connect(f.url()).await.unwrap());
            let wait = sqlx::query("UPDATE orders SET version = version WHERE order_id = $1").bind(made.head.order_id.0);
            assert_eq!(wait.execute(&mut other).await.unwrap().rows_affected(), 1);
            assert!(began.elapsed() < Duration::from_secs(3), "held up for {:?}", began.elapsed());
            let late = stopped.commit().await;
            assert!(matches!(late, Err(StoreError::Unknown { .. } | StoreError::Retry { .. })), "{late:?}");
            assert_eq!(f.get(&made).await.unwrap().status, Status::Created);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_new_connection_is_counted_before_anything_is_written_over_it() {
    on(Engine::Postgres, async |f: Fixture| {
        let outbox = &f.store.outbox;
        let mut intake = f.store.orders.intake().await.unwrap();
        intake.accept(&orders("a", 0..1)).await.unwrap();
        let before = outbox.connections();
        intake.accept(&orders("b", 0..1)).await.unwrap();
        assert_eq!(outbox.connections(), before, "it is the same one");
        f.lose_idle_connections().await;
        intake.accept(&orders("c", 0..1)).await.unwrap();
        assert!(outbox.connections() > before, "the lost one was replaced without a word");
        let before = outbox.connections();
        f.store.inbox.begin("worker").await.unwrap();
        assert_eq!(outbox.connections(), before + 1);
    })
    .await;
}
