//! Unreadable records that an operator skips: one dead letter stands for them, and the partition continues behind them.

use minishop_bus::consume::Partition;
use minishop_bus::{Headers, Record};
use minishop_core::parking::DeadCode;
use minishop_core::position::Position;
use minishop_store::{InboxEntry, RequestedBy, StoreError};
use tokio::time::Instant;

use super::batch::{Processor, write};
use super::plan::{Plan, Spans};
use crate::event::decode::{Content, EventDigest, Incoming, Refused, id_of_record};

/// A range of records to step over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gap {
    pub partition: Partition,
    /// The first unreadable offset.
    pub from: i64,
    pub until: i64,
    /// The client library's error.
    pub error: String,
    /// Who requested the skip, and why.
    pub requested_by: RequestedBy,
}

impl Gap {
    fn refused(&self) -> Refused {
        let Self { from, until, error, requested_by, .. } = self;
        let who = if requested_by.operator.is_empty() { &requested_by.client_id.0 } else { &requested_by.operator };
        let message = format!("records {from} to {} cannot be read ({error}); skipped by {who}", until - 1);
        let message = if requested_by.reason.is_empty() { message } else { format!("{message}: {}", requested_by.reason) };
        Refused { code: DeadCode::RecordUnreadable, message, event_type: None }
    }

    /// Returns the record that stands for the gap: a place without content.
    fn record(&self) -> Record {
        let Partition { topic, partition } = self.partition.clone();
        Record { topic, partition, offset: self.from, key: None, value: None, headers: Headers::default(), timestamp: 0 }
    }
}

impl Processor {
    /// Settles a gap; doing it again changes nothing.
    pub(super) async fn step_over(&self, gap: &Gap, seen: &[Position]) -> Result<Vec<Position>, StoreError> {
        let started = Instant::now();
        let (record, refused) = (gap.record(), gap.refused());
        let (event_id, digest) = (id_of_record(&record), EventDigest::of_bytes(b""));
        let content = Content::Refused(refused.clone());
        let incoming = Incoming { record: &record, event_id, digest, key: bytes::Bytes::new(), content };
        let reach = Position { topic: record.topic.to_string(), partition: record.partition, next_offset: gap.until };
        let mut plan = Plan::new(self.clock.now(), vec![reach], Spans::new());
        plan.journal.seen = seen.to_vec();
        let mut tx = self.inbox.begin(&self.config.kafka_group).await?;
        let gate = tx.gate(&[InboxEntry { event_id, data_sha: digest.0, order_id: None }]).await?;
        if gate.fresh.contains(&event_id) {
            plan.refuse(&incoming, &refused, &self.events);
        }
        let rows = write(tx, &mut plan).await.inspect_err(|error| self.commits.doubt(error))?;
        self.committed(&plan, rows, started);
        tracing::warn!(
            topic = &*record.topic,
            partition = record.partition,
            offset = gap.from,
            read.offset = gap.until,
            "unreadable records are skipped, as an operator requested"
        );
        Ok(plan.journal.positions)
    }
}
