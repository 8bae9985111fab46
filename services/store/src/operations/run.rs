//! The steps of an operation that a worker runs. Each is one transaction that first locks the operation's row, which reveals a
//! lost lease or an operator's pause or stop.

mod statements;

use std::collections::HashSet;

use anyhow::Context as _;
use minishop_core::clock::Timestamp;
use minishop_core::crash;
use minishop_core::operation::{ItemState, MOST_REDRIVES, Skip, State, Tally};

use super::super::columns::{self, Columns as _};
use super::super::database::{Arg, Row, Work};
use super::super::{Result, StoreError, Transition};
use super::{DiscardCandidate, Operation, Operations, Run, audit, begin, progress, words};
use statements::{
    CLAIM, DECIDE, DELETE, DISCARD_CANDIDATES, END, FENCE, GIVE_BACK, HOLD, MARK, NEXT_OF_KEY, OPEN, PENDING, RELEASE, deleted,
    discard_candidate, released,
};
pub(super) use statements::{DeletedEvent, Released};

impl Operations {
    /// Takes or renews the leases of operations that have not ended, oldest first and paused ones last. Leases of other workers
    /// are taken only after they expire.
    pub async fn claim(&self, owner: &str, lease: std::time::Duration, limit: i64) -> Result<Vec<Run>> {
        const OPERATION: &str = "operations.claim";
        if self.0.read(OPERATION, &OPEN, Vec::new()).await?.is_empty() {
            return Ok(Vec::new());
        }
        let mut work = self.0.begin(OPERATION).await?;
        let seconds = i64::try_from(lease.as_secs()).unwrap_or(i64::MAX);
        let args = vec![Arg::Now, Arg::Long(seconds), Arg::text(owner), Arg::Long(limit)];
        let mut runs = Vec::new();
        for row in work.run(&CLAIM, args).await? {
            let read = || -> sqlx::Result<_> { Ok((row.id(0)?, row.long(1)?)) };
            let (id, epoch) = read().map_err(|error| StoreError::unreadable(OPERATION, error))?;
            let operation = progress::read(work.as_mut(), id).await?;
            runs.extend(operation.map(|operation| Run { operation, epoch }));
        }
        close(work, !runs.is_empty()).await?;
        runs.sort_by_key(|run| run.operation.id);
        Ok(runs)
    }

    /// Gives back all leases of a worker that ends.
    pub async fn give_back(&self, owner: &str) -> Result<()> {
        let mut work = self.0.begin("operations.give_back").await?;
        if work.run(&GIVE_BACK, vec![Arg::text(owner)]).await?.is_empty() { Ok(()) } else { work.commit().await }
    }

    /// Decides released dead letters and returns the operation; `None` when its lease is lost or it has ended.
    pub async fn decide(&self, run: &Run) -> Result<Option<Operation>> {
        let mut work = self.0.begin("operations.decide").await?;
        if fence(work.as_mut(), run).await?.is_none() {
            return Ok(None);
        }
        let decided = work.run(&DECIDE, vec![id(run)]).await?;
        let operation = progress::read(work.as_mut(), run.operation.id.0).await?;
        close(work, !decided.is_empty()).await?;
        Ok(operation)
    }

    /// Makes at most `most` of the operation's dead letters due again; returns how many, or `None` when it may not continue.
    pub async fn release(&self, run: &Run, most: usize, at: Timestamp) -> Result<Option<usize>> {
        let mut work = self.0.begin("operations.release").await?;
        if fence(work.as_mut(), run).await? != Some(State::Running) {
            return Ok(None);
        }
        let limit = Arg::Long(i64::try_from(most).unwrap_or(i64::MAX));
        let rows = work.run(&PENDING, vec![id(run), limit]).await?;
        let wanted = columns::all("operations.ids", &rows, |row| row.long(0))?;
        let args = vec![Arg::Now, Arg::Longs(wanted.clone()), Arg::Long(i64::from(MOST_REDRIVES))];
        let released = columns::all("operations.release", &work.run(&RELEASE, args).await?, released)?;
        let ids: Vec<i64> = released.iter().map(|row| row.id).collect();
        let left: Vec<i64> = wanted.into_iter().filter(|id| !ids.contains(id)).collect();
        let reasons = begin::reasons(work.as_mut(), &left, |_| Skip::LoopGuard).await?;
        for (skip, ids) in reasons {
            mark(work.as_mut(), run, ItemState::Skipped, skip.as_str(), ids).await?;
        }
        mark(work.as_mut(), run, ItemState::Released, "", ids).await?;
        work.note(&released.iter().filter_map(|row| words::redriven(run, row, at)).collect::<Vec<_>>()).await?;
        crash::point("redrive_mid_step");
        work.commit().await?;
        Ok(Some(released.len()))
    }

    /// Reads the next dead letters of a discard, with their orders.
    pub async fn discard_candidates(&self, run: &Run, most: usize) -> Result<Vec<DiscardCandidate>> {
        let args = vec![id(run), Arg::Long(i64::try_from(most).unwrap_or(i64::MAX))];
        self.0.all("operations.discard_candidates", &DISCARD_CANDIDATES, args, discard_candidate).await
    }

    /// Discards one dead letter: deletes its row, changes its order if the fence holds, and makes the next event of its key due.
    ///
    /// Returns the outbox number of the order's event if the order changed; `None` when the operation may not continue.
    pub async fn discard(
        &self,
        run: &Run,
        candidate: &DiscardCandidate,
        transition: Option<&Transition>,
        at: Timestamp,
    ) -> Result<Option<Option<i64>>> {
        let mut work = self.0.begin("operations.discard").await?;
        if fence(work.as_mut(), run).await? != Some(State::Running) {
            return Ok(None);
        }
        if let Some(transition) = transition {
            // The order is locked before the lot's row, as everywhere: otherwise a cancel and this could deadlock.
            work.run(&HOLD, vec![Arg::Id(Some(transition.order_id.0))]).await?;
        }
        let rows = work.run(&DELETE, vec![Arg::Long(candidate.parked_id), Arg::Id(Some(candidate.event_id.0))]).await?;
        let Some(deleted) = columns::first("operations.discard", &rows, deleted)? else {
            // A dead letter that exists and was not deleted is another event, to which a restore gave the same row id.
            for (skip, ids) in begin::reasons(work.as_mut(), &[candidate.parked_id], |_| Skip::NotFound).await? {
                mark(work.as_mut(), run, ItemState::Skipped, skip.as_str(), ids).await?;
            }
            work.commit().await?;
            return Ok(Some(None));
        };
        let passed = match transition {
            Some(transition) => work.apply(std::slice::from_ref(transition)).await?,
            None => HashSet::new(),
        };
        if candidate.announced {
            work.note(&words::discarded(run, &deleted, at).into_iter().collect::<Vec<_>>()).await?;
        }
        if deleted.blocks {
            let key = Arg::Bytes(Some(deleted.record_key.clone()));
            work.run(&NEXT_OF_KEY, vec![Arg::Now, Arg::text(&deleted.consumer), key]).await?;
        }
        mark(work.as_mut(), run, ItemState::Succeeded, "", vec![candidate.parked_id]).await?;
        audit::write(work.as_mut(), &words::discard(run, candidate.parked_id, &deleted, at)).await?;
        let event = transition.filter(|transition| passed.contains(&transition.order_id)).map(|transition| &transition.event);
        let number = work.announce(&event.into_iter().collect::<Vec<_>>()).await?.pop();
        crash::point("discard_mid");
        work.commit().await?;
        Ok(Some(number))
    }

    /// Stops an operation early; dead letters not released stay dead. Returns `false` when the lease is lost or it had stopped.
    pub async fn stop(&self, run: &Run, because: &str, at: Timestamp) -> Result<bool> {
        let mut work = self.0.begin("operations.stop").await?;
        let stopped =
            fence(work.as_mut(), run).await?.is_some() && progress::stop(work.as_mut(), run.operation.id, because).await?;
        if stopped {
            audit::write(work.as_mut(), &words::stop(run, because, at)).await?;
            work.commit().await?;
        }
        Ok(stopped)
    }

    /// Ends an operation whose dead letters are all decided; returns `false` when the lease is lost.
    pub async fn end(&self, run: &Run, tally: &Tally, at: Timestamp) -> Result<bool> {
        let mut work = self.0.begin("operations.end").await?;
        let Some(state) = fence(work.as_mut(), run).await? else { return Ok(false) };
        work.run(&END, vec![Arg::Now, id(run)]).await?;
        if state != State::Stopped {
            audit::write(work.as_mut(), &words::end(run, tally, at)).await?;
        }
        work.commit().await?;
        Ok(true)
    }
}

/// Commits, or rolls back a transaction that changed nothing.
pub(super) async fn close(work: Box<dyn Work>, changed: bool) -> Result<()> {
    if changed { work.commit().await } else { work.rollback().await }
}

/// Locks the operation's row; `None` when the lease is lost or the operation has ended.
async fn fence(work: &mut dyn Work, run: &Run) -> Result<Option<State>> {
    let rows = work.run(&FENCE, vec![id(run), Arg::Long(run.epoch)]).await?;
    let read = |row: &Row| State::parse(row.text(0)?).context("unknown state");
    columns::first("operations.fence", &rows, read)
}

async fn mark(work: &mut dyn Work, run: &Run, state: ItemState, reason: &str, ids: Vec<i64>) -> Result<()> {
    work.run(&MARK, vec![id(run), Arg::text(state.as_str()), Arg::text(reason), Arg::Longs(ids)]).await.map(drop)
}

const fn id(run: &Run) -> Arg {
    Arg::Id(Some(run.operation.id.0))
}
