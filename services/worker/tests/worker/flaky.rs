//! An endpoint that fails at random, called over HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use minishop_core::backoff::Backoff;
use minishop_platform::clock::SystemClock;
use minishop_platform::config::{Config, Webhook as Settings};
use minishop_platform::ctx::{Ctx, Metrics};
use minishop_platform::outbound::Targets;
use minishop_worker::handlers::{HandlerPlace, Webhook};
use minishop_worker::upcast::Versions;
use minishop_worker::{LotTask, Processor, WorkerMetrics, WorkerShared};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::records::{Sent, created};
use crate::shop::Shop;

/// How many of ten calls are answered with 500: at random, but the same in each run.
const FAILING: u64 = 4;

/// Answers until it is dropped.
async fn endpoint() -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, mut serving, calls) = (listener.local_addr().unwrap(), JoinSet::new(), Arc::new(AtomicU64::new(0)));
    serving.spawn(async move {
        let mut open = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            open.spawn(serve(stream, calls.clone()));
        }
    });
    (addr, serving)
}

async fn serve(stream: TcpStream, calls: Arc<AtomicU64>) {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim_end().parse().unwrap();
            }
        }
        reader.read_exact(&mut vec![0; length]).await.unwrap();
        // splitmix64
        let mut bits = calls.fetch_add(1, Ordering::SeqCst).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let status = if (bits >> 32) % 10 < FAILING { "500 Internal Server Error" } else { "200 OK" };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        if reader.get_mut().write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

pub async fn six_customers_flow_though_four_calls_in_ten_fail(shop: Shop) {
    let (addr, _serving) = endpoint().await;
    let settings = Settings {
        url: format!("http://{addr}/").parse().unwrap(),
        key: vec![7; 32].into(),
        timeout: Duration::from_secs(5),
        concurrency: 32,
        targets: Targets::Any,
    };
    let webhook = Webhook::new(&settings, Arc::new(SystemClock), &Metrics::default());
    let retry = Backoff { base: Duration::from_millis(5), factor: 1, cap: Duration::from_millis(5) };
    let config = Arc::new(Config { retry, retry_attempts: 1_000, ..(*shop.ctx().config).clone() });
    let ctx = Ctx { config, metrics: Metrics::default(), ..shop.ctx().clone() };
    let metrics = WorkerMetrics::register(&ctx.metrics);
    let setup = WorkerShared::new(HandlerPlace::Lot(Arc::new(webhook)), Versions::current());
    let (processor, lot) = (Processor::new(&ctx, metrics.clone(), setup.clone()), LotTask::new(&ctx, metrics, setup));
    let customers: Vec<Sent> = (0..6).map(|_| created()).collect();
    let mut events = customers.clone();
    for _ in 1..40 {
        events.extend(customers.iter().map(Sent::same_customer));
    }
    processor.step(&events.iter().map(Sent::record).collect::<Vec<_>>(), &[]).await.unwrap();
    let all = i64::try_from(events.len()).unwrap();
    let handled = async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        while shop.count("orders WHERE status = 'processed'").await < all {
            if !shop.is_distributed() {
                // The test moves the lot's clock.
                shop.age(Duration::from_millis(20)).await;
            }
            tick.tick().await;
        }
    };
    // With a pause of 30 s per five failures in a row this took minutes.
    let handled = async {
        let in_time = tokio::time::timeout(Duration::from_secs(25), handled).await;
        ctx.drain.cancel();
        in_time
    };
    let (ran, in_time, ()) = futures::join!(lot.run(ctx.clone()), handled, shop.run_relay());
    ran.unwrap();
    let done = shop.count("orders WHERE status = 'processed'").await;
    assert!(in_time.is_ok(), "{done} of {all} orders after 25 s");
    let order: Vec<_> = shop.published("orders.processed").await.into_iter().filter_map(|row| row.event.order_id).collect();
    for customer in 0..6 {
        let expected: Vec<_> = events.iter().skip(customer).step_by(6).map(Sent::order_id).collect();
        let published: Vec<_> = order.iter().copied().filter(|id| expected.contains(id)).collect();
        assert_eq!(published, expected, "the orders of a customer keep their order");
    }
}
