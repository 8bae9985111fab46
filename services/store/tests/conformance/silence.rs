//! A PostgreSQL server that falls silent, as when its machine vanishes: nothing arrives, and no connection is closed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use minishop_core::ids::OperationId;
use minishop_store::{Claim, Renewal, Result, Role, StoreError};
use minishop_testkit::database::{Engine, Held};
use minishop_testkit::rows::{clock, order_id};
use minishop_testkit::wait::eventually;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::{Fixture, on};

/// A proxy between a store and its server that holds everything back once `silent` is set. Ends with the test.
struct Wire {
    addr: SocketAddr,
    silent: watch::Sender<bool>,
    _task: JoinSet<()>,
}

impl Wire {
    async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, silent) = (listener.local_addr().unwrap(), watch::Sender::new(false));
        let (mut task, told) = (JoinSet::new(), silent.clone());
        task.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.unwrap();
                open.spawn(carry(near, TcpStream::connect(&server).await.unwrap(), told.subscribe()));
            }
        });
        Self { addr, silent, _task: task }
    }
}

/// Forwards bytes both ways until the wire falls silent; a silent connection stays silent.
async fn carry(mut near: TcpStream, mut far: TcpStream, mut silent: watch::Receiver<bool>) {
    tokio::select! {
        // First: what the server answers after the silence began must not pass.
        biased;
        _ = silent.wait_for(|silent| *silent) => {}
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
    }
    std::future::pending::<()>().await;
}

fn gave_up<T: std::fmt::Debug>(outcome: &Result<T>) {
    assert!(matches!(outcome, Err(StoreError::Retry { .. } | StoreError::Unknown { .. })), "{outcome:?}");
}

/// Takes locks for which every statement has to wait.
const LOCK: &str = "BEGIN; LOCK TABLE outbox_event, relay_owner, parked, orders, inbox, operation IN ACCESS EXCLUSIVE MODE";

/// Silences the wire while the statements wait for the locks, then releases the locks.
async fn cut_off_while_they_wait(f: &Fixture, wire: &Wire, holder: Held, statements: i64) {
    let all_wait = async || f.blocked().await >= statements;
    eventually(Duration::from_secs(2), "all statements wait", all_wait).await;
    wire.silent.send_replace(true);
    holder.release().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_has_gone_without_a_word_holds_nobody_up() {
    on(Engine::Postgres, async |f: Fixture| {
        let wire = Wire::to(f.server().to_owned()).await;
        let store = f.behind(wire.addr).open(clock(), false).await.unwrap();
        let types = Vec::new();
        let renewal = Renewal::default();
        let claim = Claim { types: &types, lease: Duration::from_secs(40), limit: 1 };
        let (known, began) = ([(order_id(), 1)], Instant::now());
        let id = OperationId(uuid::Uuid::nil());
        let work = async || {
            tokio::join!(
                store.outbox.stats(),
                store.outbox.lead("one", &[Role::Api], &renewal),
                store.lot.claim("worker", &claim),
                store.orders.changed(&known),
                store.housekeeping.forget_settled("worker", Duration::from_mins(1), 1),
                store.operations.operation(id),
            )
        };
        // Opens the connections beforehand.
        let _ = work().await;
        let holder = f.hold(LOCK).await;
        let ((stats, lead, claimed, changed, forgotten, operation), ()) =
            tokio::join!(work(), cut_off_while_they_wait(&f, &wire, holder, 6));
        gave_up(&stats);
        gave_up(&lead);
        gave_up(&claimed);
        gave_up(&changed);
        gave_up(&forgotten);
        gave_up(&operation);
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());

        // No caller gets a connection that has fallen silent.
        wire.silent.send_replace(false);
        store.outbox.stats().await.unwrap();
        store.outbox.lead("one", &[Role::Api], &Renewal::default()).await.unwrap();
        store.lot.claim("worker", &claim).await.unwrap();
    })
    .await;
}
