//! A processor over a fresh store.

use std::ops::Deref;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use minishop_bus::Record;
use minishop_core::backoff::Backoff;
use minishop_core::clock::{ManualClock, Timestamp, from_millis};
use minishop_core::position::Position;
use minishop_platform::config::Config;
use minishop_platform::ctx::Ctx;
use minishop_platform::relay::RelayTask;
use minishop_store::{Role, Store, StoreError};
use minishop_testkit::ctx::{NO_BROKERS, config, relay};
use minishop_testkit::database::Engine;
use minishop_testkit::fresh_store::FreshStore;
use minishop_testkit::metrics::metric;
use minishop_worker::handlers::HandlerPlace;
use minishop_worker::upcast::Versions;
use minishop_worker::{Processor, WorkerMetrics, WorkerShared};

pub struct Shop {
    pub processor: Processor,
    fresh: FreshStore,
    ctx: Ctx,
    relay: Mutex<Option<RelayTask>>,
}

impl Deref for Shop {
    type Target = FreshStore;

    fn deref(&self) -> &FreshStore {
        &self.fresh
    }
}

/// Returns a full second, which events show as text.
pub fn now() -> Timestamp {
    from_millis(1_760_000_000_000)
}

/// Runs a test on a fresh store.
pub async fn on(engine: Engine, test: impl AsyncFnOnce(Shop)) {
    let Some(fresh) = FreshStore::on(engine).await else { return };
    let (ctx, task) = ctx(&fresh.store, NO_BROKERS, "test", "");
    let metrics = WorkerMetrics::register(&ctx.metrics);
    let setup = WorkerShared::new(HandlerPlace::Stream, Versions::current());
    test(Shop { processor: Processor::new(&ctx, metrics, setup), fresh, ctx, relay: Mutex::new(Some(task)) }).await;
}

/// Builds the context of a worker, and its relay.
pub fn ctx(store: &Store, brokers: &str, owner: &str, prefix: &str) -> (Ctx, RelayTask) {
    let config = Config {
        topic_prefix: prefix.to_owned(),
        kafka_group: format!("{prefix}g"),
        kafka_session_timeout: Duration::from_secs(6),
        retry: Backoff { base: Duration::from_mins(1), factor: 4, cap: Duration::from_hours(12) },
        ..config(Path::new(""))
    };
    let clock = Arc::new(ManualClock::at(now()));
    minishop_testkit::ctx::ctx(config, clock, store, relay(owner, &[Role::Worker], brokers))
}

impl Shop {
    /// Settles records; asserts that all of them are settled.
    pub async fn step(&self, records: &[Record]) {
        let mut positions = self.processor.step(records, &[]).await.unwrap();
        positions.sort_by_key(|position| position.partition);
        assert_eq!(positions, ends(records), "every partition is settled to its end");
        let stored = self.store.reads.positions("g").await.unwrap();
        for end in ends(records) {
            let there = |p: &&Position| p.partition == end.partition && p.next_offset >= end.next_offset;
            assert!(stored.iter().any(|position| there(&position)), "the store says so too: {stored:?}");
        }
    }

    /// Expires the leases of a worker that is gone.
    pub async fn end_leases(&self) {
        let past = if self.is_distributed() { "clock_timestamp() - interval '1 s'" } else { "0" };
        self.sql(&format!("UPDATE parked SET leased_until = {past}, next_attempt_at = {past} WHERE leased_until IS NOT NULL"))
            .await;
    }

    /// Runs the relay until the drain; once.
    pub async fn run_relay(&self) {
        let relay = self.relay.lock().unwrap().take().unwrap();
        relay.run(self.ctx.drain.clone()).await.unwrap();
    }

    pub async fn try_step(&self, records: &[Record]) -> Result<Vec<Position>, StoreError> {
        self.processor.step(records, &[]).await
    }

    /// Returns the context of this shop's workers.
    pub fn ctx(&self) -> &Ctx {
        &self.ctx
    }

    pub fn metric(&self, sample: &str) -> u64 {
        metric(&self.ctx.metrics, sample)
    }

    pub fn events(&self, outcome: &str) -> u64 {
        self.metric(&format!("worker_events_total{{outcome=\"{outcome}\"}}"))
    }
}

fn ends(records: &[Record]) -> Vec<Position> {
    let mut ends: Vec<Position> = Vec::new();
    for record in records {
        let next_offset = record.offset + 1;
        match ends.iter_mut().find(|end| end.partition == record.partition) {
            Some(end) => end.next_offset = next_offset.max(end.next_offset),
            None => ends.push(Position { topic: record.topic.to_string(), partition: record.partition, next_offset }),
        }
    }
    ends.sort_by_key(|end| end.partition);
    ends
}
