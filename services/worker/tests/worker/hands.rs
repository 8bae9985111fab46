//! Workers that are stepped by hand.

use std::sync::Arc;

use minishop_bus::Record;
use minishop_core::clock::Timestamp;
use minishop_core::ids::Ids;
use minishop_platform::clock::SystemIds;
use minishop_platform::config::Config;
use minishop_platform::ctx::{Ctx, Metrics};
use minishop_store::Store;
use minishop_testkit::metrics::metric;
use minishop_worker::handlers::HandlerPlace;
use minishop_worker::upcast::Versions;
use minishop_worker::{LotTask, Processor, WorkerMetrics, WorkerShared};
use uuid::Uuid;

use crate::shop::Shop;

/// A worker whose stream and lot are stepped by hand, with its own metrics.
pub struct Hands {
    pub processor: Processor,
    pub lot: LotTask,
    pub ctx: Ctx,
}

impl Hands {
    /// Settles records.
    pub async fn stream(&self, records: &[Record]) {
        self.processor.step(records, &[]).await.unwrap();
    }

    /// Runs the lot for what is due now, and no more; returns how many rows it claimed.
    pub async fn lot(&mut self) -> usize {
        self.lot.step().await.unwrap()
    }

    /// Runs the lot until nothing is due; returns how many rows it claimed.
    pub async fn drain(&mut self) -> usize {
        let mut all = 0;
        loop {
            match self.lot().await {
                0 => return all,
                more => all += more,
            }
        }
    }

    pub fn metric(&self, sample: &str) -> u64 {
        metric(&self.ctx.metrics, sample)
    }
}

/// Draws the longest wait of every backoff, and otherwise random bits.
#[derive(Debug)]
struct LongestWaits;

impl Ids for LongestWaits {
    fn random(&self) -> [u8; 10] {
        let mut bytes = SystemIds.random();
        bytes[..4].fill(0xff);
        bytes
    }

    fn next(&self, at: Timestamp) -> Uuid {
        SystemIds.next(at)
    }
}

impl Shop {
    /// Creates a worker to be stepped by hand, as after a restart.
    pub fn hands(&self, place: HandlerPlace) -> Hands {
        self.hands_that_read(place, Versions::current())
    }

    pub fn hands_that_read(&self, place: HandlerPlace, versions: Versions) -> Hands {
        self.hands_on(self.store.clone(), WorkerShared::new(place, versions), 8)
    }

    /// Creates a worker on the given store handle, with this limit of attempts.
    pub fn hands_on(&self, store: Store, setup: WorkerShared, retry_attempts: i32) -> Hands {
        let config = Arc::new(Config { retry_attempts, ..(*self.ctx().config).clone() });
        let ctx = Ctx { config, metrics: Metrics::default(), ids: Arc::new(LongestWaits), store, ..self.ctx().clone() };
        let metrics = WorkerMetrics::register(&ctx.metrics);
        Hands { processor: Processor::new(&ctx, metrics.clone(), setup.clone()), lot: LotTask::new(&ctx, metrics, setup), ctx }
    }
}
