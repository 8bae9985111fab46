//! Stores behind a connection pooler, a real `PgBouncer`.

use std::time::Duration;

use minishop_store::error::OpenError;
use minishop_store::{Claim, Renewal, Role, StoreError, postgres};
use minishop_testkit::bouncer::Bouncer;
use minishop_testkit::database::{Engine, settings};
use minishop_testkit::rows::orders;
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;

use crate::support::{Fixture, on};

/// Common setting that accepts start-up parameters and silently drops them.
const LENIENT: &str = "ignore_startup_parameters = extra_float_digits,options";

async fn refusal(url: &str) -> OpenError {
    let opened = tokio::time::timeout(Duration::from_secs(20), postgres::connect(url, &settings(false))).await;
    opened.expect("an answer in time").expect_err("a refusal")
}

fn is_refused_by_name(error: &OpenError, part: &str) {
    let text = error.to_string();
    assert!(error.code() == "POOLER_UNSUPPORTED" && !error.is_retry(), "{error:?}");
    assert!(text.contains(part) && text.contains("pool_mode = session") && !text.contains('\n'), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_shares_server_connections_among_sessions_is_refused_by_name() {
    on(Engine::Postgres, async |f: Fixture| {
        // Which server connection is used next: the last used one, or the longest idle one.
        for order in ["server_round_robin = 0", "server_round_robin = 1"] {
            let bouncer = Bouncer::before(f.server(), &format!("pool_mode = transaction\n{LENIENT}\n{order}")).await;
            is_refused_by_name(&refusal(f.behind(bouncer.addr).url()).await, "transaction mode");
        }
        let bouncer = Bouncer::before(f.server(), &format!("pool_mode = statement\n{LENIENT}")).await;
        is_refused_by_name(&refusal(f.behind(bouncer.addr).url()).await, "pooler");
        let bouncer = Bouncer::before(f.server(), &format!("pool_mode = transaction\n{LENIENT}\ndefault_pool_size = 1")).await;
        is_refused_by_name(&refusal(f.behind(bouncer.addr).url()).await, "transaction mode");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_pooler_in_transaction_mode_is_refused_by_name() {
    on(Engine::Postgres, async |f: Fixture| {
        let bouncer = Bouncer::before(f.server(), &format!("pool_mode = transaction\n{LENIENT}\nserver_round_robin = 1")).await;
        let url = f.behind(bouncer.addr).url().to_owned();
        let mut others = JoinSet::new();
        for _ in 0..4 {
            let mut connection = PgConnection::connect(&url).await.unwrap();
            others.spawn(async move { while sqlx::raw_sql("SELECT pg_sleep(0.001)").execute(&mut connection).await.is_ok() {} });
        }
        is_refused_by_name(&refusal(&url).await, "transaction mode");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_in_session_mode_works_as_it_comes() {
    on(Engine::Postgres, async |f: Fixture| {
        for more in ["", LENIENT] {
            let bouncer = Bouncer::before(f.server(), &format!("pool_mode = session\n{more}")).await;
            let store = postgres::connect(f.behind(bouncer.addr).url(), &settings(false)).await.unwrap();
            let batch = orders(&format!("client-{}", more.len()), 0..3);
            assert_eq!(store.orders.intake().await.unwrap().accept(&batch).await.unwrap().len(), 3);
            assert_eq!(store.outbox.lead("one", &[Role::Api], &Renewal::default()).await.unwrap().shards.len(), 8);
            store.outbox.release("one").await.unwrap();
            let claim = Claim { types: &[], lease: Duration::from_secs(40), limit: 1 };
            assert_eq!(store.lot.claim("worker", &claim).await.unwrap(), []);
            // The store's limits apply on the server connection even if start-up parameters were dropped.
            let mut stopped = store.inbox.begin("worker").await.unwrap();
            stopped.orders(&[batch[0].head.order_id], &[]).await.unwrap();
            let limited = "pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'";
            let gone = async { while f.count(limited).await > 0 {} };
            tokio::time::timeout(Duration::from_secs(4), gone).await.expect("the server ends what is idle in a transaction");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parameter_that_a_pooler_refuses_is_told_by_name() {
    on(Engine::Postgres, async |f: Fixture| {
        let bouncer = Bouncer::before(f.server(), "pool_mode = session").await;
        let error = refusal(&format!("{}?options=-c%20geqo%3Doff", f.behind(bouncer.addr).url())).await;
        is_refused_by_name(&error, "unsupported startup parameter: options");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_connection_that_bears_the_mark_of_another_session_is_not_used() {
    on(Engine::Postgres, async |f: Fixture| {
        // It does not reset sessions: each finds what the previous one has set.
        let bouncer = Bouncer::before(f.server(), &format!("pool_mode = session\nserver_reset_query =\n{LENIENT}")).await;
        let refused = async {
            match postgres::connect(f.behind(bouncer.addr).url(), &settings(false)).await {
                Err(error) => error,
                Ok(store) => loop {
                    if let Err(StoreError::Retry { source, .. }) = store.orders.intake().await {
                        break source.downcast().expect("why there is no connection");
                    }
                },
            }
        };
        let error = tokio::time::timeout(Duration::from_secs(20), refused).await.expect("a refusal in time");
        is_refused_by_name(&error, "shares server connections");
    })
    .await;
}
