//! Operations over dead letters, stepped by hand.

use std::sync::Arc;

use chrono::TimeDelta;
use minishop_bus::Headers;
use minishop_core::clock::{Clock as _, ManualClock};
use minishop_core::ids::{ClientId, EventId, OperationId};
use minishop_core::operation::{Kind, State, Tally};
use minishop_core::parking::State as Parked;
use minishop_platform::ctx::{Ctx, Metrics};
use minishop_store::{Action, DeadLetterFilter, NewOperation, Operation, Operations, ParkedEvent, Selection};
use minishop_testkit::lot::{self, operation, park, requested_by};
use minishop_testkit::metrics::metric;
use minishop_worker::handlers::HandlerPlace as Handling;
use minishop_worker::upcast::Versions;
use minishop_worker::{OperationsTask, Progress, WorkerShared};
use serde_json::Value;

use crate::records::{Sent, created};
use crate::shop::{Shop, now};

/// A worker's operation runner, with a clock that the test moves.
struct Runner {
    task: OperationsTask,
    clock: Arc<ManualClock>,
    ctx: Ctx,
}

impl Runner {
    fn new(shop: &Shop) -> Self {
        let clock = Arc::new(ManualClock::at(now()));
        let ctx = Ctx { metrics: Metrics::default(), clock: clock.clone(), ..shop.ctx().clone() };
        let setup = WorkerShared::new(Handling::Stream, Versions::current());
        Self { task: OperationsTask::new(&ctx, setup), clock, ctx }
    }

    /// Advances all operations by one step, a second after the previous one.
    async fn step(&mut self) -> Progress {
        self.clock.advance(TimeDelta::seconds(1));
        self.task.step().await.unwrap()
    }
}

async fn begin(shop: &Shop, kind: Kind, rate: i32) -> OperationId {
    begin_on(&shop.store.operations, kind, rate).await
}

/// Starts an operation over all dead letters.
pub async fn begin_on(operations: &Operations, kind: Kind, rate: i32) -> OperationId {
    let new = NewOperation { rate, at: now(), ..operation(kind, Selection::Filter(DeadLetterFilter::default())) };
    operations.begin(&new).await.unwrap().unwrap();
    new.id
}

fn parked(sent: &Sent, state: Parked) -> ParkedEvent {
    let record = sent.record();
    let dead = state == Parked::Dead;
    ParkedEvent {
        record_key: record.key.clone().unwrap(),
        event_id: sent.event_id(),
        order_id: Some(sent.order_id()),
        client_id: Some(ClientId("a".into())),
        event_type: Some(sent.text("/type")),
        offset: record.offset,
        raw_key: record.key,
        raw_value: record.value,
        raw_headers: record.headers.encode(),
        error_class: dead.then_some("exhausted"),
        error_code: dead.then_some("ATTEMPTS_EXHAUSTED"),
        error_message: dead.then(|| "the shop is closed".to_owned()),
        error_fingerprint: dead.then_some([3; 32]),
        failed_at: dead.then(now),
        ..lot::parked("", state, true)
    }
}

/// Parks the events of `count` orders, each dead and the head of its own key.
pub async fn dead(shop: &Shop, count: usize) -> Vec<Sent> {
    let mut orders = Vec::new();
    for _ in 0..count {
        orders.push(created().accepted(shop, "a").await);
    }
    park(&shop.store, "g", orders.iter().map(|sent| parked(sent, Parked::Dead)).collect()).await;
    orders
}

async fn stands(shop: &Shop, id: OperationId) -> Operation {
    shop.store.operations.operation(id).await.unwrap().unwrap()
}

/// Ends every released row as a handler that succeeds would.
async fn all_succeed(shop: &Shop) {
    shop.sql("DELETE FROM parked WHERE state = 'retrying'").await;
}

/// Ends every released row as a handler that refuses would.
async fn all_fail(shop: &Shop) {
    shop.sql(
        "UPDATE parked SET state = 'dead', attempts = 1, error_class = 'permanent', error_code = 'X' WHERE state = 'retrying'",
    )
    .await;
}

fn tally(pending: usize, released: usize, succeeded: usize, failed: usize) -> Tally {
    Tally { pending, released, succeeded, failed, skipped: 0 }
}

pub async fn a_canary_redrive_climbs_its_ramp_and_waits_after_each_step(shop: Shop) {
    dead(&shop, 70).await;
    let id = begin(&shop, Kind::Redrive, 10_000).await;
    let mut runner = Runner::new(&shop);
    let mut released = Vec::new();
    while stands(&shop, id).await.state == State::Running {
        runner.step().await;
        let due = shop.count("parked WHERE state = 'retrying'").await;
        assert_eq!(runner.step().await, if due == 0 { Progress::Idle } else { Progress::Waiting });
        assert_eq!(shop.count("parked WHERE state = 'retrying'").await, due, "the next step waits for this one");
        released.push(due);
        all_succeed(&shop).await;
    }
    assert_eq!(released, [1, 5, 1, 63, 0]);
    assert_eq!(stands(&shop, id).await.tally, tally(0, 0, 70, 0));
    assert_eq!(shop.count("timeline WHERE kind = 'redriven'").await, 70);
    assert_eq!(metric(&runner.ctx.metrics, "worker_operation_items_total{kind=\"redrive\"}"), 70);
    let audit = shop.store.operations.audit(None, 10).await.unwrap();
    assert_eq!(audit.iter().map(|row| row.outcome.as_str()).collect::<Vec<_>>(), ["done", "accepted"]);
}

pub async fn a_canary_that_fails_stops_the_redrive_and_the_rest_stays_dead(shop: Shop) {
    dead(&shop, 20).await;
    let id = begin(&shop, Kind::Redrive, 10_000).await;
    let mut runner = Runner::new(&shop);
    runner.step().await;
    all_fail(&shop).await;
    runner.step().await;
    let stopped = stands(&shop, id).await;
    assert_eq!((stopped.state, stopped.stopped_because.as_str()), (State::Stopped, "1 of 1 failed"));
    assert_eq!((stopped.tally.failed, stopped.tally.skipped), (1, 19));
    runner.step().await;
    assert!(stands(&shop, id).await.ended_at.is_some());
    assert_eq!(runner.step().await, Progress::Idle);
    assert_eq!(shop.count("parked WHERE state = 'dead'").await, 20);
    assert_eq!(shop.count("parked WHERE redrives = 1").await, 1, "the others were not touched");
    assert_eq!(shop.store.operations.audit(None, 1).await.unwrap()[0].outcome, "stopped");
}

pub async fn a_worker_that_takes_over_goes_on_where_the_rows_say(shop: Shop) {
    dead(&shop, 30).await;
    let id = begin(&shop, Kind::Redrive, 10_000).await;
    let mut released = 0;
    for _ in 0..40 {
        // The previous worker was killed, and its lease has expired.
        shop.sql("UPDATE operation SET owner = NULL").await;
        let mut runner = Runner::new(&shop);
        runner.step().await;
        released += shop.count("parked WHERE state = 'retrying'").await;
        shop.sql("UPDATE operation SET owner = NULL").await;
        runner.step().await;
        all_succeed(&shop).await;
    }
    let operation = stands(&shop, id).await;
    assert_eq!((operation.state, operation.tally), (State::Done, tally(0, 0, 30, 0)));
    assert_eq!(shop.count("timeline WHERE kind = 'redriven'").await, 30, "each was released once");
    assert!(released <= 30, "{released}");
}

pub async fn the_rate_of_an_operation_is_kept(shop: Shop) {
    dead(&shop, 12).await;
    let id = begin(&shop, Kind::Discard, 2).await;
    let mut runner = Runner::new(&shop);
    runner.task.step().await.unwrap();
    let mut left = vec![shop.count("parked").await];
    for _ in 0..3 {
        runner.clock.advance(TimeDelta::milliseconds(500));
        runner.task.step().await.unwrap();
        left.push(shop.count("parked").await);
        runner.task.step().await.unwrap();
        assert_eq!(shop.count("parked").await, *left.last().unwrap(), "no time has passed");
    }
    assert_eq!(left, [11, 10, 9, 8], "one at once, and two a second");
    assert_eq!(stands(&shop, id).await.state, State::Running);
}

pub async fn a_discarded_order_fails_with_its_event_and_the_next_one_of_its_key_is_due(shop: Shop) {
    let order = dead(&shop, 1).await.remove(0);
    let behind = order.same_customer().accepted(&shop, "a").await;
    park(&shop.store, "g", vec![parked(&behind, Parked::Waiting)]).await;
    let id = begin(&shop, Kind::Discard, 100).await;
    let mut runner = Runner::new(&shop);
    runner.step().await;
    assert_eq!(metric(&runner.ctx.metrics, "worker_operation_items_total{kind=\"discard\"}"), 1);
    let failed = shop.order(order.order_id()).await.unwrap();
    assert_eq!((failed.status.as_str(), failed.version), ("failed", 2));
    assert_eq!(shop.order(behind.order_id()).await.unwrap().status, "created");
    assert_eq!(shop.count("parked WHERE next_attempt_at IS NOT NULL").await, 1);
    let event = shop.published("orders.failed").await.remove(0).event;
    assert_eq!(event.event_id, EventId::derived(order.event_id(), now(), "orders.failed.v1"), "derived from its cause");
    let envelope: Value = serde_json::from_slice(event.payload.as_deref().unwrap()).unwrap();
    assert_eq!((&envelope["type"], &envelope["data"]["status"]), (&"orders.failed.v1".into(), &"failed".into()));
    assert_eq!(envelope["data"]["total"].as_f64(), Some(21.0));
    assert_eq!(envelope["correlationId"], order.json["correlationId"]);
    let headers = Headers::decode(&event.headers).unwrap();
    assert_eq!((headers.get("causation-id"), headers.get("ce_sequence")), (Some("corr-ops"), Some("2")));
    assert_eq!(shop.count("timeline WHERE kind = 'failed' AND version = 2").await, 1);
    assert_eq!(shop.count("timeline WHERE kind = 'discarded'").await, 1);
    runner.step().await;
    assert_eq!(stands(&shop, id).await.state, State::Done);
}

pub async fn a_discard_leaves_an_order_that_is_settled_and_one_that_a_copy_names(shop: Shop) {
    let settled = dead(&shop, 1).await.remove(0);
    shop.sql("UPDATE orders SET status = 'cancelled', version = 2").await;
    let named = created().accepted(&shop, "a").await;
    let copy = ParkedEvent { blocks: false, event_id: created().event_id(), ..parked(&named, Parked::Dead) };
    park(&shop.store, "g", vec![copy]).await;
    begin(&shop, Kind::Discard, 100).await;
    let mut runner = Runner::new(&shop);
    while runner.step().await != Progress::Idle {}
    assert_eq!(shop.count("parked").await, 0);
    assert_eq!(shop.order(settled.order_id()).await.unwrap().status, "cancelled");
    assert_eq!(shop.order(named.order_id()).await.unwrap().status, "created");
    assert!(shop.published("orders.failed").await.is_empty());
    assert_eq!(shop.count("audit WHERE outcome = 'discarded'").await, 2);
}

pub async fn an_operator_pauses_resumes_and_cancels_between_two_steps(shop: Shop) {
    dead(&shop, 10).await;
    let id = begin(&shop, Kind::Redrive, 10_000).await;
    let mut runner = Runner::new(&shop);
    let control = async |action| {
        assert!(shop.store.operations.control(id, action, &requested_by("the shop is fixed"), now()).await.unwrap().unwrap().1);
    };
    runner.step().await;
    control(Action::Pause).await;
    all_succeed(&shop).await;
    runner.step().await;
    runner.step().await;
    assert_eq!(stands(&shop, id).await.tally, tally(9, 0, 1, 0), "what was released is still decided");
    control(Action::Resume).await;
    runner.step().await;
    assert_eq!(stands(&shop, id).await.tally, tally(4, 5, 1, 0));
    control(Action::Cancel).await;
    runner.step().await;
    let cancelled = stands(&shop, id).await;
    assert_eq!((cancelled.state, cancelled.tally.skipped, cancelled.ended_at), (State::Stopped, 4, None));
    all_succeed(&shop).await;
    runner.step().await;
    runner.step().await;
    assert!(stands(&shop, id).await.ended_at.is_some(), "it has ended when all that it released is decided");
    assert!(runner.clock.now() > now());
}

pub async fn a_redriven_key_is_processed_by_the_lot_in_its_original_order(shop: Shop) {
    let head = dead(&shop, 1).await.remove(0);
    let mut orders = vec![head.clone()];
    for _ in 0..3 {
        orders.push(head.same_customer().accepted(&shop, "a").await);
    }
    park(&shop.store, "g", orders[1..].iter().map(|sent| parked(sent, Parked::Waiting)).collect()).await;
    let id = begin(&shop, Kind::Redrive, 100).await;
    let (mut runner, mut worker) = (Runner::new(&shop), shop.hands(Handling::Stream));
    assert_eq!(worker.drain().await, 0, "behind a dead letter nothing is due");
    runner.step().await;
    assert_eq!(worker.drain().await, 4);
    runner.step().await;
    assert_eq!((stands(&shop, id).await.state, shop.count("parked").await), (State::Done, 0));
    let published: Vec<_> = shop.published("orders.processed").await.into_iter().map(|row| row.event.order_id.unwrap()).collect();
    assert_eq!(published, orders.iter().map(Sent::order_id).collect::<Vec<_>>());
}

pub async fn a_redriven_event_of_a_cancelled_order_drains_as_a_no_op(shop: Shop) {
    let order = dead(&shop, 1).await.remove(0);
    let id = begin(&shop, Kind::Redrive, 100).await;
    shop.sql("UPDATE orders SET status = 'cancelled', version = 2").await;
    let (mut runner, mut worker) = (Runner::new(&shop), shop.hands(Handling::Stream));
    runner.step().await;
    worker.drain().await;
    runner.step().await;
    assert_eq!((stands(&shop, id).await.tally, shop.count("parked").await), (tally(0, 0, 1, 0), 0));
    assert_eq!(shop.order(order.order_id()).await.unwrap().status, "cancelled");
    assert!(shop.published("orders.processed").await.is_empty());
}
