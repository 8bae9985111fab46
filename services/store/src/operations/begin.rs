//! Begins an operation: freezes its set, so that later dead letters are not touched.

use std::collections::{HashMap, HashSet};

use minishop_core::crash;
use minishop_core::operation::{Kind, MOST_REDRIVES, Skip};

use super::super::columns::Columns as _;
use super::super::database::{Arg, Row, Statement, Work};
use super::super::{Result, StoreError};
use super::dead_letters::{filter_args, filter_clause};
use super::{FrozenSet, NewOperation, Operation, Operations, SHOWN_ITEMS, Selection, audit, progress, words};

static INSERT: Statement = Statement::new(
    "INSERT INTO operation (id, kind, state, client_id, operator, reason, filter, rate, failure_ratio, correlation_id, \
     created_at) VALUES ($1, $2, 'running', $3, $4, $5, $6, $7, $8, $9, $10)",
);

/// The clause of a selection by the ids in `$1`.
macro_rules! ids_clause {
    () => {
        "p.state = 'dead' AND p.id @any1"
    };
}

// Sorted, so that two operations over one set wait for each other and cannot deadlock. The unique index over pending items skips
// dead letters of another operation.
macro_rules! freeze {
    ($clause:expr, $operation:literal, $most:literal) => {
        Statement::new(concat!(
            "INSERT INTO operation_item (operation_id, parked_id, event_id, order_id, state, reason) SELECT ",
            $operation,
            ", p.id, p.event_id, p.order_id, CASE WHEN p.redrives >= ",
            $most,
            " THEN 'skipped' ELSE 'pending' END, CASE WHEN p.redrives >= ",
            $most,
            " THEN 'LOOP_GUARD' ELSE '' END FROM parked p WHERE ",
            $clause,
            " ORDER BY p.id ON CONFLICT DO NOTHING"
        ))
    };
}

macro_rules! taken {
    ($clause:expr, $operation:literal) => {
        Statement::new(concat!(
            "INSERT INTO operation_item (operation_id, parked_id, event_id, order_id, state, reason) SELECT ",
            $operation,
            ", p.id, p.event_id, p.order_id, 'skipped', 'TAKEN' FROM parked p WHERE ",
            $clause,
            " AND NOT EXISTS (SELECT 1 FROM operation_item i WHERE i.operation_id = ",
            $operation,
            " AND i.parked_id = p.id) ORDER BY p.id ON CONFLICT DO NOTHING"
        ))
    };
}

static FREEZE_IDS: Statement = freeze!(ids_clause!(), "$2", "$3");
static FREEZE_FILTER: Statement = freeze!(filter_clause!(), "$7", "$8");
static TAKEN_IDS: Statement = taken!(ids_clause!(), "$2");
static TAKEN_FILTER: Statement = taken!(filter_clause!(), "$7");

static THERE: Statement = Statement::new("SELECT id, state, redrives FROM parked WHERE id @any1");

static OWN: Statement =
    Statement::new("SELECT parked_id FROM operation_item WHERE operation_id = $1 AND state IN ('pending', 'skipped')");

static LEAVE: Statement = Statement::new(
    "INSERT INTO operation_item (operation_id, parked_id, state, reason) SELECT $1, e.value, 'skipped', $2 FROM @each3",
);

static COUNT: Statement = Statement::new("SELECT count(*) FROM operation_item WHERE operation_id = $1 AND state = 'pending'");

static SKIPPED: Statement = Statement::new(
    "SELECT parked_id, reason FROM operation_item WHERE operation_id = $1 AND state = 'skipped' ORDER BY parked_id LIMIT $2",
);

static NOTHING_TO_DO: Statement = Statement::new("UPDATE operation SET state = 'done', ended_at = @now1 WHERE id = $2");

impl Operations {
    /// Freezes an operation's set and stores it for a worker. An operation over nothing is done at once.
    ///
    /// Returns the operation as it begins; `None` when ids were given and none of them is known: then nothing is written.
    pub async fn begin(&self, new: &NewOperation) -> Result<Option<(FrozenSet, Operation)>> {
        let mut work = self.0.begin("operations.begin").await?;
        let frozen = freeze(work.as_mut(), new).await?;
        if nothing_is_known(new, &frozen) {
            work.rollback().await?;
            return Ok(None);
        }
        if frozen.matched == 0 {
            work.run(&NOTHING_TO_DO, vec![Arg::Now, Arg::Id(Some(new.id.0))]).await?;
        }
        audit::write(work.as_mut(), &words::begin(new, &frozen)).await?;
        // Read before the commit: a read that fails after it would look as if nothing had been written.
        let begun = progress::read(work.as_mut(), new.id.0).await?;
        work.commit().await?;
        crash::point("redrive_after_freeze");
        Ok(begun.map(|operation| (frozen, operation)))
    }

    /// Returns what [`Operations::begin`] would freeze, and writes nothing.
    pub async fn dry_run(&self, new: &NewOperation) -> Result<Option<FrozenSet>> {
        let mut work = self.0.begin("operations.dry_run").await?;
        let frozen = freeze(work.as_mut(), new).await?;
        work.rollback().await?;
        Ok((!nothing_is_known(new, &frozen)).then_some(frozen))
    }
}

fn nothing_is_known(new: &NewOperation, frozen: &FrozenSet) -> bool {
    let unknown = frozen.skipped.iter().all(|(_, skip)| *skip == Skip::NotFound);
    matches!(new.selection, Selection::Ids(_)) && frozen.matched == 0 && unknown
}

async fn freeze(work: &mut dyn Work, new: &NewOperation) -> Result<FrozenSet> {
    insert(work, new).await?;
    let id = Arg::Id(Some(new.id.0));
    // Only redrives are limited: a discard cannot loop.
    let most = match new.kind {
        Kind::Redrive => i64::from(MOST_REDRIVES),
        Kind::Discard => i64::MAX,
    };
    match &new.selection {
        Selection::Ids(ids) => {
            work.run(&FREEZE_IDS, vec![Arg::Longs(ids.clone()), id.clone(), Arg::Long(most)]).await?;
            work.run(&TAKEN_IDS, vec![Arg::Longs(ids.clone()), id.clone()]).await?;
            leave_others(work, new, ids).await?;
        }
        Selection::Filter(filter) => {
            let args = |more: &[Arg]| [filter_args(filter), more.to_vec()].concat();
            work.run(&FREEZE_FILTER, args(&[id.clone(), Arg::Long(most)])).await?;
            work.run(&TAKEN_FILTER, args(std::slice::from_ref(&id))).await?;
        }
    }
    let matched = work.run(&COUNT, vec![id.clone()]).await?;
    let skipped = work.run(&SKIPPED, vec![id, Arg::Long(SHOWN_ITEMS)]).await?;
    let read =
        |row: &Row| -> sqlx::Result<(i64, Skip)> { Ok((row.long(0)?, Skip::parse(row.text(1)?).unwrap_or(Skip::NotDead))) };
    let unreadable = |error| StoreError::unreadable("operations.begin", error);
    Ok(FrozenSet {
        matched: matched.first().map_or(Ok(0), |row| row.long(0)).map_err(unreadable)?,
        skipped: skipped.iter().map(read).collect::<sqlx::Result<_>>().map_err(unreadable)?,
    })
}

async fn insert(work: &mut dyn Work, new: &NewOperation) -> Result<()> {
    let args = vec![
        Arg::Id(Some(new.id.0)),
        Arg::text(new.kind.as_str()),
        Arg::text(&new.requested_by.client_id.0),
        Arg::text(&new.requested_by.operator),
        Arg::text(&new.requested_by.reason),
        Arg::Text(new.filter.clone()),
        Arg::Long(i64::from(new.rate)),
        Arg::Double(new.failure_ratio),
        Arg::text(new.requested_by.correlation_id.as_str()),
        Arg::Time(Some(new.at)),
    ];
    work.run(&INSERT, args).await.map(drop)
}

/// Stores why given ids are left out.
async fn leave_others(work: &mut dyn Work, new: &NewOperation, ids: &[i64]) -> Result<()> {
    let own = work.run(&OWN, vec![Arg::Id(Some(new.id.0))]).await?;
    let own: HashSet<i64> = own.iter().filter_map(|row| row.long(0).ok()).collect();
    let others: Vec<i64> = ids.iter().copied().filter(|id| !own.contains(id)).collect();
    for (skip, ids) in reasons(work, &others, |_| Skip::NotDead).await? {
        let args = vec![Arg::Id(Some(new.id.0)), Arg::text(skip.as_str()), Arg::Longs(ids)];
        work.run(&LEAVE, args).await?;
    }
    Ok(())
}

/// Groups rows by why they were left out: `NotFound` if they do not exist, `NotDead` if they are not dead, else what `judge`
/// makes of their number of redrives.
pub(super) async fn reasons(
    work: &mut dyn Work,
    ids: &[i64],
    judge: impl Fn(i32) -> Skip + Send,
) -> Result<HashMap<Skip, Vec<i64>>> {
    let mut reasons: HashMap<Skip, Vec<i64>> = HashMap::new();
    if ids.is_empty() {
        return Ok(reasons);
    }
    let mut there = HashMap::new();
    for row in work.run(&THERE, vec![Arg::Longs(ids.to_vec())]).await? {
        let read = || -> sqlx::Result<(i64, Skip)> {
            let skip = if row.text(1)? == "dead" { judge(row.int(2)?) } else { Skip::NotDead };
            Ok((row.long(0)?, skip))
        };
        let (id, skip) = read().map_err(|error| StoreError::unreadable("operations.reasons", error))?;
        there.insert(id, skip);
    }
    let mut seen = HashSet::new();
    for id in ids.iter().filter(|id| seen.insert(**id)) {
        reasons.entry(there.get(id).copied().unwrap_or(Skip::NotFound)).or_default().push(*id);
    }
    Ok(reasons)
}
