//! Workers that die at a named point.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use minishop_bus::Record;
use minishop_core::backoff::Backoff;
use minishop_core::ids::OrderId;
use minishop_platform::clock::{SystemClock, SystemIds};
use minishop_platform::ctx::Ctx;
use minishop_testkit::ctx::NO_BROKERS;
use minishop_testkit::database::open;
use minishop_worker::handlers::{Delivery, Handled, Handler, HandlerPlace};
use minishop_worker::upcast::Versions;
use minishop_worker::{LotTask, Processor, WorkerMetrics, WorkerShared};
use serde_json::{Value, json};

use crate::child::{self, told};
use crate::consuming::{until_processed, worker};
use crate::log::log;
use crate::records::{Sent, created, record};
use crate::shop::{self, Shop};

/// The test that is the worker's child process.
const WORKER: &str = "crash::worker_that_dies";

const STORE: &str = "CRASH_STORE";
const DIR: &str = "CRASH_DIR";
const BROKERS: &str = "CRASH_BROKERS";
const PREFIX: &str = "CRASH_PREFIX";

/// Points that a worker passes while its stream and lot are stepped.
const STEPPED: [&str; 7] = [
    "after_handler_before_tx",
    "mid_worker_tx",
    "park_before_commit",
    "park_after_commit_before_offset",
    "retry_after_count",
    "retry_after_handler",
    "retry_after_commit",
];

/// Points of the poll thread and of what it shares with the processor. A worker that dies within its first transaction must have
/// committed no offset; it is the last, so that the next one finds the group where it was left.
const POLLED: [&str; 3] = ["after_effect_before_offset", "after_offset", "mid_worker_tx"];

/// Not a test: the worker that dies, or ends well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs only as the child process of other tests"]
async fn worker_that_dies() {
    let (Some(address), Some(dir)) = (told(STORE), told(DIR)) else { return };
    child::arm();
    let store = open(&address, Arc::new(SystemClock), false).await.unwrap();
    let brokers = told(BROKERS);
    let (ctx, relay) = shop::ctx(&store, brokers.as_deref().unwrap_or(NO_BROKERS), "child", &told(PREFIX).unwrap_or_default());
    let mut config = (*ctx.config).clone();
    config.retry = Backoff { base: Duration::from_millis(1), factor: 2, cap: Duration::from_millis(4) };
    let ctx = Ctx { config: Arc::new(config), clock: Arc::new(SystemClock), ids: Arc::new(SystemIds), ..ctx };
    if brokers.is_none() {
        return step_to_the_end(&ctx, &PathBuf::from(dir)).await;
    }
    let mut tasks = tokio::task::JoinSet::new();
    for task in minishop_worker::start_with(ctx.clone(), WorkerShared::new(HandlerPlace::Stream, Versions::current())) {
        tasks.spawn(task.run);
    }
    tasks.spawn(relay.run(ctx.drain.clone()));
    tasks.join_next().await.unwrap().unwrap().unwrap();
}

/// Reads the feed from the last worker's committed offset, and steps until nothing is left to do.
async fn step_to_the_end(ctx: &Ctx, dir: &Path) {
    let (metrics, setup) = (
        WorkerMetrics::register(&ctx.metrics),
        WorkerShared::new(HandlerPlace::Lot(Arc::new(Endpoint(dir.to_owned()))), Versions::current()),
    );
    let processor = Processor::new(ctx, metrics.clone(), setup.clone());
    let mut lot = LotTask::new(ctx, metrics, setup);
    let feed: Vec<Value> = serde_json::from_slice(&std::fs::read(dir.join("feed")).unwrap()).unwrap();
    let feed: Vec<Record> = feed.iter().map(fed).collect();
    let offset = || std::fs::read_to_string(dir.join("offset")).map_or(0, |text| text.parse::<usize>().unwrap());
    loop {
        let from = offset();
        let batch = &feed[from..feed.len().min(from + 5)];
        if !batch.is_empty() {
            processor.step(batch, &[]).await.unwrap();
            std::fs::write(dir.join("offset"), (from + batch.len()).to_string()).unwrap();
        }
        lot.make_due().await.unwrap();
        lot.step().await.unwrap();
        if batch.is_empty()
            && ctx.store.lot.next_due(&ctx.config.kafka_group, &Versions::current().types()).await.unwrap().is_none()
        {
            return;
        }
    }
}

fn fed(line: &Value) -> Record {
    let text = |name: &str| line[name].as_str().unwrap().to_owned();
    Record { offset: line["offset"].as_i64().unwrap(), key: Some(text("key").into()), ..record(Some(text("value").as_bytes())) }
}

/// An endpoint that outlives workers: it logs each call, and answers by that log.
#[derive(Debug)]
struct Endpoint(PathBuf);

#[async_trait]
impl Handler for Endpoint {
    async fn handle(&self, delivery: &Delivery) -> Handled {
        let before = calls(&self.0).into_iter().filter(|id| *id == delivery.order_id).count();
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(self.0.join("calls")).unwrap();
        // In one write: calls run concurrently.
        file.write_all(format!("{}\n", delivery.order_id).as_bytes()).unwrap();
        if delivery.record_key.starts_with(b"refused") {
            return Handled::Refused { message: "422".to_owned() };
        }
        let fails = usize::from(delivery.order_id.0.as_bytes()[15] % 3);
        if before < fails { Handled::Failed { message: "503".to_owned(), retry_after: None } } else { Handled::Done }
    }

    fn paused(&self) -> Option<Duration> {
        None
    }

    fn concurrency(&self) -> usize {
        4
    }
}

fn calls(dir: &Path) -> Vec<OrderId> {
    let text = std::fs::read_to_string(dir.join("calls")).unwrap_or_default();
    text.lines().map(|line| OrderId::parse(line).unwrap()).collect()
}

/// Four customers with six orders each, and one whose first order is refused for good.
fn feed() -> Vec<Sent> {
    let mut customers: Vec<Sent> = (0..4).map(|_| created()).collect();
    let refused = created();
    let key = format!("refused-{}", refused.text("/data/customerId"));
    customers.push(refused.with("/data/customerId", key.as_str()).keyed(Some(key.as_bytes())));
    let rounds =
        (0..6).map(|round| customers.iter().map(|c| if round == 0 { c.clone() } else { c.same_customer() }).collect::<Vec<_>>());
    rounds.flatten().collect()
}

pub async fn a_worker_killed_at_any_point_of_stream_and_lot_loses_doubles_and_reorders_nothing(shop: Shop) {
    for point in STEPPED {
        for nth in [1, 2 + u64::from(rand::random::<u8>() % 3)] {
            let dir = tempfile::tempdir().unwrap();
            let events = feed();
            let lines: Vec<_> = events
                .iter()
                .map(|event| {
                    let record = event.record();
                    let text = |bytes: Option<Bytes>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
                    json!({"offset": record.offset, "key": text(record.key), "value": text(record.value)})
                })
                .collect();
            std::fs::write(dir.path().join("feed"), Value::from(lines).to_string()).unwrap();
            let env = [(STORE, shop.address().to_owned()), (DIR, dir.path().to_str().unwrap().to_owned())];
            child::dies(WORKER, &env, point, nth).await;
            // The dead worker's leases need not be awaited.
            shop.end_leases().await;
            child::ends_well(WORKER, &env).await;
            look(&shop, &events, dir.path(), &format!("{point}:{nth}")).await;
        }
    }
}

/// Compares what a worker left behind with what was fed.
async fn look(shop: &Shop, events: &[Sent], dir: &Path, what: &str) {
    let (refused, good): (Vec<&Sent>, Vec<&Sent>) =
        events.iter().partition(|event| event.key.as_ref().unwrap().starts_with(b"refused"));
    let mut expected: HashMap<Bytes, Vec<OrderId>> = HashMap::new();
    for event in &good {
        expected.entry(event.key.clone().unwrap()).or_default().push(event.order_id());
    }
    let mut published: HashMap<Bytes, Vec<OrderId>> = HashMap::new();
    for row in shop.published("orders.processed").await {
        if expected.contains_key(&row.event.record_key) {
            published.entry(row.event.record_key).or_default().push(row.event.order_id.unwrap());
        }
    }
    assert_eq!(published, expected, "{what}: every order is processed once, in its key's order");
    let calls = calls(dir);
    for (key, orders) in &expected {
        let mut first: Vec<OrderId> = calls.iter().copied().filter(|id| orders.contains(id)).collect();
        first.dedup();
        assert_eq!(first, *orders, "{what}: the endpoint was called in the order of {key:?}, one after the other");
    }
    let key = refused[0].key.clone().unwrap();
    let letters = shop.published("orders.created.dlq").await.into_iter().filter(|row| row.event.record_key == key).count();
    let states: Vec<_> = shop.parked().await.into_iter().filter(|p| p.record_key == key).map(|p| p.state).collect();
    assert_eq!(
        (letters, states),
        (1, [vec!["dead"], vec!["waiting"; 5]].concat().into_iter().map(str::to_owned).collect()),
        "{what}"
    );
    for event in events {
        let kinds: Vec<_> = shop.timeline(event.order_id()).await.into_iter().map(|(kind, _)| kind).collect();
        let count = |kind: &str| kinds.iter().filter(|k| *k == kind).count();
        let was_good = usize::from(good.iter().any(|good| good.order_id() == event.order_id()));
        assert_eq!((count("adopted"), count("parked"), count("processed")), (1, 1, was_good), "{what}: {kinds:?}");
    }
}

pub async fn a_worker_killed_around_its_offset_commit_loses_and_doubles_nothing(shop: Shop) {
    let log = log(&shop).await;
    let mut sent = 0;
    for point in POLLED {
        let events: Vec<_> = (0..200).map(|_| created()).collect();
        log.send_events(&events).await;
        sent += 200;
        let env = [
            (STORE, shop.address().to_owned()),
            (DIR, String::new()),
            (BROKERS, log.brokers.clone()),
            (PREFIX, log.prefix.clone()),
        ];
        child::dies(WORKER, &env, point, 1).await;
    }
    let worker = worker(&shop.store, &log, "last");
    until_processed(&shop, sent).await;
    // An offset committed too early loses nothing, since the store overrides the group; but it shows here.
    assert_eq!(worker.metric("worker_store_behind_group_total"), 0, "the group is never ahead of the store");
    worker.drain().await;
    assert_eq!((shop.count("timeline WHERE kind = 'processed'").await, shop.count("parked").await), (sent, 0));
}
