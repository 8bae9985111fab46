//! Hints through a real Redis, and through one that is cut off.

use std::net::SocketAddr;
use std::time::Duration;

use minishop_core::ids::OrderId;
use minishop_platform::ctx::{Metrics, Status};
use minishop_platform::hints::{Hints, HintsTask};
use secrecy::SecretString;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(20);

/// Returns the address of the Redis that `infra/test` runs; without it a test fails unless that is allowed.
#[expect(clippy::disallowed_methods, reason = "names the server for tests")]
fn redis() -> Option<SocketAddr> {
    let url = std::env::var("MINISHOP_TEST_REDIS").ok();
    let may_be_missing = std::env::var("MINISHOP_TEST_ALLOW_MISSING").is_ok_and(|value| value == "1");
    assert!(
        url.is_some() || may_be_missing,
        "MINISHOP_TEST_REDIS is not set: point it to a Redis server, or set MINISHOP_TEST_ALLOW_MISSING=1 to go without"
    );
    url.map(|url| url.trim_start_matches("redis://").trim_end_matches('/').parse().expect("host and port"))
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

    fn metric(&self, line: &str) -> u64 {
        let mut text = String::new();
        self.metrics.with(|registry| prometheus_client::encoding::text::encode(&mut text, registry)).expect("text");
        let value = text.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok());
        value.unwrap_or(0)
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let waiting = async {
            let mut again = tokio::time::interval(Duration::from_millis(2));
            while !holds(self) {
                again.tick().await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never happened: {what}"));
    }
}

#[expect(clippy::disallowed_methods, reason = "tests play boot's part")]
fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(work);
}

/// Waits until `listener` hears a hint. `speaker` repeats it, because hints are lost while `listener` subscribes.
async fn hears(listener: &Process, speaker: &Process) {
    let before = listener.metric("minishop_redis_hints_received_total");
    let heard = listener.until("a hint is heard", |p| {
        speaker.hints.committed();
        p.metric("minishop_redis_hints_received_total") > before
    });
    heard.await;
    tokio::time::timeout(PATIENCE, listener.hints.heard()).await.expect("the waiting relay is woken");
}

fn prefix() -> String {
    format!("{:016x}.", rand::random::<u64>())
}

#[tokio::test]
async fn a_hint_wakes_the_other_process_and_not_its_own() {
    let Some(redis) = redis() else { return };
    let prefix = prefix();
    let (one, two) = (Process::start(redis, &prefix, "one"), Process::start(redis, &prefix, "two"));
    hears(&two, &one).await;
    assert_eq!(one.metric("minishop_redis_hints_received_total"), 0);
    hears(&one, &two).await;
}

#[tokio::test]
async fn changed_orders_are_told_to_the_other_process_and_not_back() {
    let Some(redis) = redis() else { return };
    let prefix = prefix();
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
    assert_eq!(one.metric("minishop_redis_changed_orders_received_total"), 1);
}

#[tokio::test]
async fn processes_of_another_prefix_are_left_alone() {
    let Some(redis) = redis() else { return };
    let (mine, prefix) = (prefix(), prefix());
    let other = Process::start(redis, &mine, "other");
    let (one, two) = (Process::start(redis, &prefix, "one"), Process::start(redis, &prefix, "two"));
    other.until("it subscribes", |p| p.metric("minishop_redis_calls_total{call=\"subscribe\",outcome=\"ok\"}") == 1).await;
    hears(&two, &one).await;
    assert_eq!(other.metric("minishop_redis_hints_received_total"), 0);
}

#[tokio::test]
async fn a_silent_server_is_left_alone_after_five_calls() {
    // It accepts connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let process = Process::start(silent.local_addr().expect("an address"), &prefix(), "one");
    let opened = process.until("the breaker opens", |p| {
        p.hints.committed();
        p.metric("minishop_redis_breaker_open") == 1
    });
    opened.await;
    assert_eq!(process.metric("minishop_redis_calls_total{call=\"publish\",outcome=\"failed\"}"), 5);
    let skipped = process.until("a call is left out", |p| {
        p.hints.committed();
        p.metric("minishop_redis_calls_total{call=\"publish\",outcome=\"skipped\"}") > 0
    });
    skipped.await;
}

#[tokio::test]
async fn hints_flow_again_after_redis_was_cut_off() {
    let Some(redis) = redis() else { return };
    let prefix = prefix();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let door = listener.local_addr().expect("an address");
    let open = CancellationToken::new();
    spawn(forward(listener, redis, open.clone()));
    let (one, two) = (Process::start(redis, &prefix, "one"), Process::start(door, &prefix, "two"));
    hears(&two, &one).await;
    open.cancel();
    let noticed = two.until("the cut is noticed", |p| {
        p.hints.committed();
        p.metric("minishop_redis_calls_total{call=\"publish\",outcome=\"failed\"}") > 0
    });
    noticed.await;
    let listener = TcpListener::bind(door).await.expect("the port is free again");
    spawn(forward(listener, redis, CancellationToken::new()));
    hears(&two, &one).await;
    hears(&one, &two).await;
}

/// Forwards connections to Redis until `cut` is cancelled, which cuts them all.
async fn forward(door: TcpListener, redis: SocketAddr, cut: CancellationToken) {
    loop {
        let (mut client, _) = tokio::select! {
            () = cut.cancelled() => return,
            accepted = door.accept() => accepted.expect("a client"),
        };
        let cut = cut.clone();
        spawn(async move {
            let mut server = TcpStream::connect(redis).await.expect("Redis answers");
            tokio::select! {
                () = cut.cancelled() => {}
                _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
            }
        });
    }
}
