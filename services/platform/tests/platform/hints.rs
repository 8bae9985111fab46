//! Hints through a real Redis, and through one that is cut off.

use std::net::SocketAddr;
use std::time::Duration;

use minishop_core::ids::OrderId;
use minishop_platform::ctx::{Metrics, Status};
use minishop_platform::hints::{Hints, HintsTask};
use minishop_testkit::forward::forward;
use minishop_testkit::metrics::metric;
use minishop_testkit::servers::server;
use minishop_testkit::wait::eventually;
use minishop_testkit::{fresh_prefix, spawn};
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(20);

fn redis() -> Option<SocketAddr> {
    let url = server("MINISHOP_TEST_REDIS")?;
    Some(url.trim_start_matches("redis://").trim_end_matches('/').parse().expect("host and port"))
}

struct Process {
    hints: Hints,
    metrics: Metrics,
    _end: tokio_util::sync::DropGuard,
}

impl Process {
    fn start(redis: SocketAddr, prefix: &str, owner: &str) -> Self {
        let (metrics, end) = (Metrics::default(), CancellationToken::new());
        let end_with_this = end.clone().drop_guard();
        let url = SecretString::from(format!("redis://{redis}"));
        let (hints, task) = HintsTask::new(&url, prefix, owner, &metrics, &Status::default()).expect("a URL");
        spawn(async move { task.run(end.clone()).await.expect("hints never fail") });
        Self { hints, metrics, _end: end_with_this }
    }

    fn metric(&self, name: &str) -> u64 {
        metric(&self.metrics, name)
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        eventually(PATIENCE, what, async || holds(self)).await;
    }
}

/// Waits until `listener` hears a hint. `speaker` repeats it, because hints are lost while `listener` subscribes.
async fn hears(listener: &Process, speaker: &Process) {
    let before = listener.metric("redis_hints_received_total");
    let heard = listener.until("a hint is heard", |p| {
        speaker.hints.committed();
        p.metric("redis_hints_received_total") > before
    });
    heard.await;
    tokio::time::timeout(PATIENCE, listener.hints.heard()).await.expect("the waiting relay is woken");
}

#[tokio::test]
async fn a_hint_wakes_the_other_process_and_not_its_own() {
    let Some(redis) = redis() else { return };
    let prefix = fresh_prefix("hints");
    let (one, two) = (Process::start(redis, &prefix, "one"), Process::start(redis, &prefix, "two"));
    hears(&two, &one).await;
    assert_eq!(one.metric("redis_hints_received_total"), 0);
    hears(&one, &two).await;
}

#[tokio::test]
async fn changed_orders_are_told_to_the_other_process_and_not_back() {
    let Some(redis) = redis() else { return };
    let prefix = fresh_prefix("hints");
    let (one, two) = (Process::start(redis, &prefix, "one"), Process::start(redis, &prefix, "two"));
    // Now both have subscribed.
    hears(&two, &one).await;
    hears(&one, &two).await;
    let [mut here, mut there] = [&one, &two].map(|process| process.hints.changes().subscribe());
    let orders: Vec<OrderId> = (1..=3).map(|n| OrderId(Uuid::from_u128(n))).collect();
    one.hints.changes().committed(orders.clone());
    for told in [&mut here, &mut there] {
        assert_eq!(
            tokio::time::timeout(PATIENCE, told.recv()).await.expect("it is told").expect("nothing is missed")[..],
            orders
        );
    }
    two.hints.changes().committed(orders[..1].to_vec());
    let told = tokio::time::timeout(PATIENCE, here.recv()).await.expect("it is told").expect("nothing is missed");
    assert_eq!(told[..], orders[..1], "what it had said itself did not come back");
    assert_eq!(one.metric("redis_changed_orders_received_total"), 1);
}

#[tokio::test]
async fn processes_of_another_prefix_are_left_alone() {
    let Some(redis) = redis() else { return };
    let (mine, prefix) = (fresh_prefix("hints"), fresh_prefix("hints"));
    let other = Process::start(redis, &mine, "other");
    let (one, two) = (Process::start(redis, &prefix, "one"), Process::start(redis, &prefix, "two"));
    other.until("it subscribes", |p| p.metric("redis_calls_total{call=\"subscribe\",outcome=\"ok\"}") == 1).await;
    hears(&two, &one).await;
    assert_eq!(other.metric("redis_hints_received_total"), 0);
}

#[tokio::test]
async fn a_silent_server_is_left_alone_after_five_calls() {
    // It accepts connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let process = Process::start(silent.local_addr().expect("an address"), &fresh_prefix("hints"), "one");
    let opened = process.until("the breaker opens", |p| {
        p.hints.committed();
        p.metric("redis_breaker_open") == 1
    });
    opened.await;
    assert_eq!(process.metric("redis_calls_total{call=\"publish\",outcome=\"failed\"}"), 5);
    let skipped = process.until("a call is left out", |p| {
        p.hints.committed();
        p.metric("redis_calls_total{call=\"publish\",outcome=\"skipped\"}") > 0
    });
    skipped.await;
}

#[tokio::test]
async fn hints_flow_again_after_redis_was_cut_off() {
    let Some(redis) = redis() else { return };
    let prefix = fresh_prefix("hints");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let door = listener.local_addr().expect("an address");
    let open = spawn(forward(listener, redis.to_string()));
    let (one, two) = (Process::start(redis, &prefix, "one"), Process::start(door, &prefix, "two"));
    hears(&two, &one).await;
    open.abort();
    let noticed = two.until("the cut is noticed", |p| {
        p.hints.committed();
        p.metric("redis_calls_total{call=\"publish\",outcome=\"failed\"}") > 0
    });
    noticed.await;
    let listener = TcpListener::bind(door).await.expect("the port is free again");
    spawn(forward(listener, redis.to_string()));
    hears(&two, &one).await;
    hears(&one, &two).await;
}
