//! What the relay asks of the store, without ever waiting for it: rows go on being sent while a job runs.
//!
//! One job at a time reads or deletes rows, so that a read never sees a row whose delete is under way; one other at a time
//! renews leases.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::shard::{Shard, State};
use super::task::RelayTask;
use crate::bus::produce::Token;
use crate::store::{Leadership, OutboxRow, OutboxStats, Result, SHARDS_PER_ROLE};

/// How often leases are renewed. Short, because the view of being alone must be fresh.
const RENEW: Duration = Duration::from_secs(1);
/// How long deletes are collected, how many start one at once, and how many go in one statement.
const COLLECT: Duration = Duration::from_millis(20);
const MANY_DELETES: usize = 500;
const MOST_DELETES: usize = 5_000;
/// How often the table is swept for rows that nobody handed over, and how old they are by then.
const SWEEP: Duration = Duration::from_secs(1);
const AGED: Duration = Duration::from_secs(2);
/// Rows of one shard that are read at once.
pub(super) const READ: i64 = 1000;
/// How often rows of other writers are looked for: the first while there are some.
pub(super) const POLL: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(50));
/// How soon the next look may follow when somebody says that there are some: hints come as often as commits.
const POLL_SOONEST: Duration = Duration::from_millis(5);
/// How soon a job that could not start is looked at again.
const SOON: Duration = Duration::from_millis(5);

/// A job's end.
pub(super) enum Done {
    /// Leases, asked for at this time.
    Led(Instant, Result<Leadership>),
    /// How much waits, asked for at this time.
    Counted(Instant, Result<OutboxStats>),
    /// The first rows of these shards that were not in hand.
    Loaded(Vec<i16>, Result<Vec<OutboxRow>>),
    /// Rows that others wrote.
    Polled(Result<Vec<OutboxRow>>),
    /// Rows that have waited for long.
    Swept(Result<Vec<OutboxRow>>),
    /// These rows are gone, or not.
    Deleted(Vec<Token>, Result<()>),
}

/// When each job is to run next, and whether one of its kind is under way.
#[derive(Debug)]
pub(super) struct Agenda {
    pub(super) leasing: bool,
    pub(super) counting: bool,
    pub(super) reading: bool,
    renew_at: Instant,
    pub(super) count_at: Instant,
    delete_at: Instant,
    sweep_at: Instant,
    polled_at: Instant,
    poll_at: Instant,
    pub(super) poll_every: Duration,
    pub(super) failures: u32,
    pub(super) retry_at: Instant,
}

impl Agenda {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            leasing: false,
            counting: false,
            reading: false,
            renew_at: now,
            count_at: now,
            delete_at: now,
            sweep_at: now + SWEEP,
            polled_at: now,
            poll_at: now,
            poll_every: POLL.0,
            failures: 0,
            retry_at: now,
        }
    }
}

impl RelayTask {
    /// Starts what is due.
    pub(super) fn start_jobs(&mut self, now: Instant) {
        if now < self.agenda.retry_at {
            return;
        }
        if !self.agenda.leasing && now >= self.agenda.renew_at {
            self.agenda.leasing = true;
            self.agenda.renew_at = now + RENEW;
            let (outbox, settings) = (self.outbox.clone(), self.settings.clone());
            let job = async move { Done::Led(now, outbox.lead(&settings.owner, &settings.roles).await) };
            self.jobs.push(job.boxed());
        }
        if !self.agenda.counting && now >= self.agenda.count_at {
            self.agenda.counting = true;
            let outbox = self.outbox.clone();
            self.jobs.push(async move { Done::Counted(now, outbox.stats().await) }.boxed());
        }
        if !self.agenda.reading
            && let Some(job) = self.next_on_rows(now)
        {
            self.agenda.reading = true;
            self.jobs.push(job);
        }
    }

    /// Tells when to look again for what is due, if nothing else happens before.
    pub(super) fn look_again(&self, now: Instant) -> Instant {
        let (api, worker) = (self.may_skip_table(0), self.may_skip_table(SHARDS_PER_ROLE));
        let quiet = |shard: i16, led: &Shard| led.state == State::Live && if shard < SHARDS_PER_ROLE { api } else { worker };
        let busy = !self.deletes.is_empty() || self.shards.iter().any(|(shard, led)| !quiet(*shard, led));
        let next = self.agenda.renew_at.min(self.agenda.sweep_at).min(self.agenda.count_at);
        let next = if busy { next.min(now + SOON) } else { next };
        next.max(self.agenda.retry_at).max(now + Duration::from_millis(1))
    }

    /// Looks for rows of other writers as soon as the store is free.
    pub(super) fn poll_soon(&mut self) {
        self.agenda.poll_at = Instant::now().max(self.agenda.polled_at + POLL_SOONEST);
        self.agenda.poll_every = POLL.0;
    }

    fn next_on_rows(&mut self, now: Instant) -> Option<BoxFuture<'static, Done>> {
        // Only between reads: a shard is never mended while a read of its broken self is under way.
        self.mend(now);
        if self.deletes.len() >= MANY_DELETES || (now >= self.agenda.delete_at && !self.deletes.is_empty()) {
            self.agenda.delete_at = now + COLLECT;
            return Some(self.delete());
        }
        if let Some(job) = self.load() {
            return Some(job);
        }
        if now >= self.agenda.sweep_at {
            self.agenda.sweep_at = now + SWEEP;
            let led: Vec<i16> = self.shards.iter().filter(|(_, led)| led.state == State::Live).map(|(shard, _)| *shard).collect();
            let outbox = self.outbox.clone();
            return (!led.is_empty()).then(|| async move { Done::Swept(outbox.aged(&led, AGED, READ).await) }.boxed());
        }
        if now >= self.agenda.poll_at {
            self.agenda.polled_at = now;
            self.agenda.poll_at = now + self.agenda.poll_every;
            let shared =
                |(shard, led): (&i16, &Shard)| (led.state == State::Live && !self.may_skip_table(*shard)).then_some(*shard);
            let shared: Vec<i16> = self.shards.iter().filter_map(shared).collect();
            let (outbox, held) = (self.outbox.clone(), self.held(&shared));
            return (!shared.is_empty()).then(|| async move { Done::Polled(outbox.pending(&shared, &held, READ).await) }.boxed());
        }
        None
    }

    fn delete(&mut self) -> BoxFuture<'static, Done> {
        let rest = self.deletes.split_off(self.deletes.len().min(MOST_DELETES));
        let rows = std::mem::replace(&mut self.deletes, rest);
        let outbox = self.outbox.clone();
        async move {
            let result = outbox.delete(&rows).await;
            Done::Deleted(rows, result)
        }
        .boxed()
    }

    /// Reads shards that were just won or mended, or whose rows stand in the table before those from memory.
    fn load(&mut self) -> Option<BoxFuture<'static, Done>> {
        let mut asked = Vec::new();
        for (shard, led) in &mut self.shards {
            if led.state == State::Load {
                led.state = State::Loading;
                asked.push(*shard);
            }
        }
        let (outbox, held) = (self.outbox.clone(), self.held(&asked));
        (!asked.is_empty()).then(|| {
            async move {
                let rows = outbox.pending(&asked, &held, READ).await;
                Done::Loaded(asked, rows)
            }
            .boxed()
        })
    }

    /// Lists rows in hand: they stand in the table until they are deleted, before those that are wanted.
    fn held(&self, shards: &[i16]) -> Vec<i64> {
        shards.iter().filter_map(|shard| self.shards.get(shard)).flat_map(Shard::in_hand).collect()
    }
}
