//! Begins a redrive or a discard: freezes its set. The workers do the rest.

use minishop_contracts::json;
use minishop_contracts::ops::v1::{
    DeadLetterFilter, DiscardDeadLettersRequest, DiscardDeadLettersResponse, RedriveDeadLettersRequest,
    RedriveDeadLettersResponse, SkippedDeadLetter,
};
use minishop_core::ids::OperationId;
use minishop_core::operation::{DEFAULT_FAILURE_RATIO, DEFAULT_RATE, Kind, Skip};
use minishop_core::refusal::Refusal;
use minishop_core::violation::{FieldCode, Violation};
use minishop_store::{FrozenSet, NewOperation, RequestedBy, Selection};

use super::dead_letters::{filter, parse_id};
use crate::app::App;
use crate::call::Call;
use crate::messages::{count, operation};
use crate::{fields, refusals};

/// A request that chooses dead letters: exactly one of ids and filter must be given.
pub trait Chooses {
    /// Returns the given ids.
    fn ids(&self) -> &[String];
    /// Returns the given filter.
    fn filter(&self) -> Option<&DeadLetterFilter>;

    /// Returns the violations of that rule.
    fn conflicts(&self) -> Vec<Violation> {
        match (self.ids().is_empty(), self.filter().is_some()) {
            (true, false) => vec![Violation::new("ids", FieldCode::Required, "must have at least one entry, or give a filter")],
            (false, true) => vec![Violation::new("filter", FieldCode::Conflict, "must not be given together with ids")],
            _ => Vec::new(),
        }
    }
}

macro_rules! chooses {
    ($($message:ty),+) => {
        $(impl Chooses for $message {
            fn ids(&self) -> &[String] {
                &self.ids
            }

            fn filter(&self) -> Option<&DeadLetterFilter> {
                self.filter.as_ref()
            }
        })+
    };
}
chooses!(RedriveDeadLettersRequest, DiscardDeadLettersRequest);

/// Starts a redrive: dead letters are processed again.
pub async fn redrive(app: &App, call: &Call, request: RedriveDeadLettersRequest) -> Result<RedriveDeadLettersResponse, Refusal> {
    let RedriveDeadLettersRequest { ids, filter, dry_run, rate, failure_ratio, reason, operator } = request;
    let plan = Plan {
        kind: Kind::Redrive,
        ids,
        filter,
        dry_run,
        rate,
        failure_ratio: failure_ratio.unwrap_or(DEFAULT_FAILURE_RATIO),
        requested_by: call.requested_by(operator, reason),
    };
    let Begun { operation, matched, skipped } = plan.begin(app, call).await?;
    Ok(RedriveDeadLettersResponse { operation, matched, skipped })
}

/// Starts a discard: dead letters are given up.
pub async fn discard(app: &App, call: &Call, request: DiscardDeadLettersRequest) -> Result<DiscardDeadLettersResponse, Refusal> {
    let DiscardDeadLettersRequest { ids, filter, dry_run, rate, reason, operator } = request;
    let requested_by = call.requested_by(operator, reason);
    // A discard cannot fail.
    let plan = Plan { kind: Kind::Discard, ids, filter, dry_run, rate, failure_ratio: 1.0, requested_by };
    let Begun { operation, matched, skipped } = plan.begin(app, call).await?;
    Ok(DiscardDeadLettersResponse { operation, matched, skipped })
}

/// The request for an operation of either kind.
struct Plan {
    kind: Kind,
    ids: Vec<String>,
    filter: Option<DeadLetterFilter>,
    dry_run: bool,
    rate: Option<i32>,
    failure_ratio: f64,
    requested_by: RequestedBy,
}

/// The answer, for either kind.
struct Begun {
    operation: Option<minishop_contracts::ops::v1::Operation>,
    matched: u32,
    skipped: Vec<SkippedDeadLetter>,
}

impl Plan {
    async fn begin(self, app: &App, call: &Call) -> Result<Begun, Refusal> {
        let malformed: Vec<String> = self.ids.iter().filter(|id| parse_id(id).is_none()).cloned().collect();
        let dry_run = self.dry_run;
        let new = self.new_operation(app);
        let (id, kind) = (new.id, new.kind);
        let operations = app.store.operations.clone();
        let write = async move {
            Ok(if dry_run {
                operations.dry_run(&new).await?.map(|frozen| (frozen, None))
            } else {
                operations.begin(&new).await?.map(|(frozen, begun)| (frozen, Some(begun)))
            })
        };
        let Some((frozen, begun)) = app.detached_writes.write(call, write).await? else {
            return Err(refusals::dead_letter_not_found());
        };
        tracing::info!(operation.id = %id, dead_letter.count = frozen.matched, dry_run, "an operator asks to {} dead letters", kind.as_str());
        Ok(Begun { operation: begun.map(operation), matched: count(frozen.matched), skipped: skipped(frozen, malformed) })
    }

    fn new_operation(self, app: &App) -> NewOperation {
        let at = app.clock.now();
        let text = self.filter.as_ref().map(|filter| String::from_utf8_lossy(&json::to_vec(filter)).into_owned());
        let mut ids: Vec<i64> = self.ids.iter().filter_map(|id| parse_id(id)).collect();
        ids.sort_unstable();
        ids.dedup();
        NewOperation {
            id: OperationId::draw(&*app.ids, at),
            kind: self.kind,
            selection: self.filter.map_or(Selection::Ids(ids), |chosen| Selection::Filter(filter(chosen))),
            filter: text,
            rate: self.rate.unwrap_or(DEFAULT_RATE),
            failure_ratio: self.failure_ratio,
            requested_by: self.requested_by,
            at,
        }
    }
}

/// Lists the skipped dead letters; malformed ids count as not found.
fn skipped(frozen: FrozenSet, malformed: Vec<String>) -> Vec<SkippedDeadLetter> {
    let found = frozen.skipped.into_iter().map(|(id, skip)| (id.to_string(), skip));
    let all = found.chain(malformed.into_iter().map(|id| (minishop_contracts::text::shown(&id), Skip::NotFound)));
    all.map(|(id, skip)| SkippedDeadLetter { id, reason: skip.as_str().to_owned() }).collect()
}

/// Validates a message that chooses dead letters. The refusal includes `found`, from decoding.
pub fn checked<T: minishop_contracts::Validate + Chooses>(
    call: &Call,
    message: T,
    mut found: Vec<Violation>,
) -> Result<T, Refusal> {
    found.extend(message.conflicts());
    fields::checked(call.protocol, message, found)
}
