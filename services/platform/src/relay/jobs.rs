//! The relay's requests to the store. They run beside the task, which keeps sending meanwhile.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use minishop_core::backoff::Backoff;
use minishop_store::{Acknowledged, Leadership, Operations, Outbox, OutboxRow, OutboxStats, Result, Role, Store};

use super::messages::{Aside, Want};
use super::shard::{Ask, Moment};
use crate::events::rebuild::Rebuilder;

/// The interval of `Outbox::stats`.
const MEASURE: Duration = Duration::from_secs(1);
/// The interval of vacuums, and the fewest removed rows that justify one.
const VACUUM: Duration = Duration::from_secs(1);
const WORTH_A_VACUUM: i64 = 1_000;
/// The longest pause between requests while the store is away.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The answer to a request.
pub(super) enum Done {
    /// Leases, requested at this time.
    Led(Moment, Result<Leadership>),
    /// Rows, at most this many of each shard.
    Brought(Vec<Ask>, usize, Result<Vec<OutboxRow>>),
    /// Whether the store accepted the published numbers.
    Acknowledged(Vec<Acknowledged>, Result<bool>),
    /// Whether the store has set the row aside.
    Aside(Aside, Result<bool>),
    Measured(Result<OutboxStats>),
    /// Whether this process may vacuum.
    Vacuumed(Result<bool>),
}

/// The running requests, among them statistics and vacuum, which the machine does not decide on.
pub(super) struct StoreJobs {
    outbox: Arc<dyn Outbox>,
    rebuilder: Arc<Rebuilder>,
    operations: Operations,
    owner: Arc<str>,
    roles: Arc<[Role]>,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
    /// `Outbox::connections` when last asked.
    connections: u64,
    measuring: bool,
    measure_at: Moment,
    vacuuming: bool,
    vacuum_at: Moment,
    /// Rows removed since the last vacuum.
    removed: i64,
    /// Consecutive failed requests.
    failures: u32,
}

impl StoreJobs {
    pub fn new(store: &Store, owner: &str, roles: &[Role]) -> Self {
        Self {
            outbox: store.outbox.clone(),
            rebuilder: Arc::new(Rebuilder::of_rows()),
            operations: store.operations.clone(),
            owner: owner.into(),
            roles: roles.into(),
            running: FuturesUnordered::new(),
            connections: 0,
            measuring: false,
            measure_at: Moment::ZERO,
            vacuuming: false,
            vacuum_at: Moment::ZERO,
            removed: 0,
            failures: 0,
        }
    }

    /// Starts a request.
    pub fn start(&mut self, want: Want, now: Moment) {
        let (outbox, owner) = (self.outbox.clone(), self.owner.clone());
        let job: BoxFuture<'static, Done> = match want {
            Want::Lead(renewal) => {
                let roles = self.roles.clone();
                async move { Done::Led(now, outbox.lead(&owner, &roles, &renewal).await) }.boxed()
            }
            Want::Read(asks, limit) => {
                let rebuilder = self.rebuilder.clone();
                async move {
                    let rows = read(outbox.as_ref(), &rebuilder, &asks, limit).await;
                    Done::Brought(asks, limit, rows)
                }
                .boxed()
            }
            Want::Acknowledge(published) => async move {
                let agreed = outbox.acknowledge(&owner, &published).await;
                Done::Acknowledged(published, agreed)
            }
            .boxed(),
            Want::SetAside(aside) => {
                let operations = self.operations.clone();
                async move {
                    let Aside { token, event_id, reason } = &aside;
                    let agreed = operations.set_row_aside(token.shard, token.number, *event_id, reason).await;
                    Done::Aside(aside, agreed)
                }
                .boxed()
            }
        };
        self.running.push(job);
    }

    /// Starts statistics and vacuum if they are due.
    pub fn start_upkeep(&mut self, now: Moment) {
        if !self.measuring && now >= self.measure_at {
            self.measuring = true;
            self.measure_at = now + MEASURE;
            let outbox = self.outbox.clone();
            self.running.push(async move { Done::Measured(outbox.stats().await) }.boxed());
        }
        if !self.vacuuming && now >= self.vacuum_at && self.removed >= WORTH_A_VACUUM {
            self.vacuuming = true;
            self.vacuum_at = now + VACUUM;
            self.removed = 0;
            let outbox = self.outbox.clone();
            self.running.push(async move { Done::Vacuumed(outbox.vacuum().await) }.boxed());
        }
    }

    /// Returns when to call `start_upkeep` again.
    pub fn upkeep_at(&self, now: Moment) -> Moment {
        self.measure_at.max(now + Duration::from_millis(1))
    }

    /// Waits for an answer; `None` if no request is running.
    pub async fn next(&mut self) -> Option<Done> {
        let done = self.running.next().await;
        match &done {
            Some(Done::Measured(_)) => self.measuring = false,
            Some(Done::Vacuumed(_)) => self.vacuuming = false,
            _ => {}
        }
        done
    }

    /// Counts removed rows, which make a vacuum worthwhile.
    pub fn removed(&mut self, rows: i64) {
        self.removed += rows;
    }

    /// Returns whether the connection that writes outbox rows is another one than at the last call.
    pub fn reconnected(&mut self) -> bool {
        let connections = self.outbox.connections();
        std::mem::replace(&mut self.connections, connections) != connections
    }

    /// Notes that the store answers; returns whether it did not before.
    pub fn answered(&mut self) -> bool {
        std::mem::take(&mut self.failures) > 0
    }

    /// Counts a failed request; returns how many have failed in a row, and the pause before the next.
    pub fn failed(&mut self) -> (u32, Duration) {
        self.failures = self.failures.saturating_add(1);
        let wait = Backoff::INFRASTRUCTURE.wait(self.failures, rand::random()).min(LONGEST_PAUSE);
        (self.failures, wait.max(Duration::from_millis(10)))
    }

    /// Waits for the running requests, and gives the leases back.
    pub async fn finish(mut self) -> Result<()> {
        while self.running.next().await.is_some() {}
        self.outbox.release(&self.owner).await
    }
}

async fn read(outbox: &dyn Outbox, rebuilder: &Rebuilder, asks: &[Ask], limit: usize) -> Result<Vec<OutboxRow>> {
    let spans: Vec<_> = asks.iter().flat_map(|ask| ask.spans.iter().copied()).collect();
    let mut rows = outbox.read(&spans, i64::try_from(limit).unwrap_or(i64::MAX)).await?;
    rebuilder.complete(outbox, &mut rows).await?;
    Ok(rows)
}
