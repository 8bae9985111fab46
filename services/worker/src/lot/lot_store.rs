//! What the lot's task claims and writes with.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use minishop_core::clock::Clock;
use minishop_core::ids::Ids;
use minishop_platform::config::Config;
use minishop_platform::ctx::{Commits, Ctx, Status};
use minishop_store::{Claim, Lease, Lot, MadeDue, Reads, StoreError};

use super::claimed_event::ClaimedEvent;
use super::decision::handed_back;
use super::metrics::LotMetrics;
use crate::event::outgoing::EventWriter;
use crate::metrics::WorkerMetrics;
use crate::worker_shared::WorkerShared;

/// Claims rows, and writes the decisions on them.
#[derive(Debug)]
pub(super) struct LotStore {
    pub lot: Arc<dyn Lot>,
    pub reads: Reads,
    pub commits: Commits,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn Ids>,
    pub config: Arc<Config>,
    pub worker: WorkerShared,
    pub status: Status,
    /// The types that this worker reads.
    pub types: Vec<String>,
    pub events: EventWriter,
    pub counted: WorkerMetrics,
    pub metrics: LotMetrics,
}

impl LotStore {
    pub fn new(ctx: &Ctx, counted: WorkerMetrics, worker: WorkerShared) -> Self {
        Self {
            lot: ctx.store.lot.clone(),
            reads: ctx.store.reads.clone(),
            commits: ctx.commits(),
            clock: ctx.clock.clone(),
            ids: ctx.ids.clone(),
            config: ctx.config.clone(),
            status: ctx.status.clone(),
            types: worker.versions.types(),
            worker,
            events: EventWriter::new(&ctx.config),
            counted,
            metrics: LotMetrics::register(&ctx.metrics),
        }
    }

    /// Claims due rows and decodes them.
    pub async fn claim(&self, lease: Duration, limit: usize) -> Result<Vec<ClaimedEvent>, StoreError> {
        let rows = self.lot.claim(&self.config.kafka_group, &Claim { types: &self.types, lease, limit }).await?;
        Ok(rows.into_iter().map(|row| ClaimedEvent::read(row, &self.worker.versions)).collect())
    }

    /// Returns in how long a row is due; `None` if no row has a time.
    pub async fn next_due(&self) -> Result<Option<Duration>, StoreError> {
        self.lot.next_due(&self.config.kafka_group, &self.types).await
    }

    /// Makes missed rows due, among some keys after `after`.
    pub async fn make_due(&self, after: Option<&Bytes>) -> Result<MadeDue, StoreError> {
        self.lot.make_due(&self.config.kafka_group, &self.types, after).await
    }

    /// Gives rows back without counting the attempt, due at once.
    pub async fn give_back(&self, leases: impl Iterator<Item = Lease>) -> Result<(), StoreError> {
        let back: Vec<_> = leases.map(|lease| handed_back(lease, Duration::ZERO)).collect();
        if back.is_empty() {
            return Ok(());
        }
        let mut tx = self.lot.begin(&self.config.kafka_group).await?;
        tx.release(&back).await?;
        tx.commit().await
    }
}
