//! Workers that die during an operation.

use std::sync::Arc;

use chrono::TimeDelta;
use minishop_core::clock::ManualClock;
use minishop_core::operation::{Kind, State};
use minishop_platform::clock::SystemClock;
use minishop_platform::ctx::Ctx;
use minishop_store::OperationQuery;
use minishop_testkit::ctx::NO_BROKERS;
use minishop_testkit::database::open;
use minishop_worker::handlers::HandlerPlace;
use minishop_worker::upcast::Versions;
use minishop_worker::{LotTask, OperationsTask, Progress, WorkerMetrics, WorkerShared};

use crate::child::{self, told};
use crate::redriving::{begin_on, dead};
use crate::shop::{self, Shop, now};

/// The test that is the worker's child process.
const WORKER: &str = "repair_crash::worker_that_dies";

const STORE: &str = "REPAIR_STORE";
const KIND: &str = "REPAIR_KIND";

/// Not a test: starts an operation unless one was started, and a worker that runs it and dies, or ends well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs only as the child process of other tests"]
async fn worker_that_dies() {
    let (Some(address), Some(kind)) = (told(STORE), told(KIND)) else { return };
    child::arm();
    let store = open(&address, Arc::new(SystemClock), false).await.unwrap();
    let clock = Arc::new(ManualClock::at(now()));
    let (ctx, _relay) = shop::ctx(&store, NO_BROKERS, "child", "");
    let ctx = Ctx { clock: clock.clone(), ..ctx };
    let running = OperationQuery { state: Some(State::Running), limit: 1, ..OperationQuery::default() };
    if store.operations.operations(&running).await.unwrap().is_empty() {
        begin_on(&store.operations, Kind::parse(&kind).unwrap(), 10_000).await;
    }
    let setup = WorkerShared::new(HandlerPlace::Stream, Versions::current());
    let mut redrive = OperationsTask::new(&ctx, setup.clone());
    let mut lot = LotTask::new(&ctx, WorkerMetrics::register(&ctx.metrics), setup);
    while redrive.step().await.unwrap() != Progress::Idle {
        clock.advance(TimeDelta::seconds(1));
        lot.step().await.unwrap();
    }
}

pub async fn a_worker_killed_in_any_step_of_an_operation_loses_and_doubles_nothing(shop: Shop) {
    let mut begun = 0;
    for (point, kind, times) in [
        ("redrive_after_freeze", Kind::Redrive, &[1][..]),
        ("redrive_mid_step", Kind::Redrive, &[1, 2, 3]),
        ("redrive_after_release_before_audit", Kind::Redrive, &[1, 2, 3]),
        ("discard_mid", Kind::Discard, &[1, 5]),
    ] {
        for nth in times {
            let orders = dead(&shop, 9).await;
            let env = [(STORE, shop.address().to_owned()), (KIND, kind.as_str().to_owned())];
            child::dies(WORKER, &env, point, *nth).await;
            // The dead worker's leases need not be awaited.
            shop.end_leases().await;
            shop.sql("UPDATE operation SET owner = NULL").await;
            child::ends_well(WORKER, &env).await;
            let (status, topic) = match kind {
                Kind::Redrive => ("processed", "orders.processed"),
                Kind::Discard => ("failed", "orders.failed"),
            };
            let published = shop.published(topic).await;
            for order in &orders {
                let id = order.order_id();
                assert_eq!(shop.order(id).await.unwrap().status, status, "{point}:{nth}");
                assert_eq!(published.iter().filter(|row| row.event.order_id == Some(id)).count(), 1, "{point}:{nth}");
                let note = if kind == Kind::Redrive { "redriven" } else { "discarded" };
                let told = shop.timeline(id).await.into_iter().filter(|(kind, _)| kind == note).count();
                assert_eq!(told, 1, "{point}:{nth}: the timeline tells it once");
            }
            begun += 1;
            let all = OperationQuery { limit: 100, ..OperationQuery::default() };
            let operations = shop.store.operations.operations(&all).await.unwrap();
            assert!(operations.iter().all(|operation| operation.state == State::Done && operation.tally.succeeded == 9));
            assert_eq!(operations.len(), begun, "{point}:{nth}: what was begun before the crash goes on");
            assert_eq!(shop.count("parked").await, 0, "{point}:{nth}");
        }
    }
}
