//! The use cases of operators. Both protocols call these.

mod announce;
mod audit;
mod dead_letters;
mod operations;
mod redrive_discard;
mod status_feed;

use minishop_contracts::ops::v1::{self as ops, GetStatusResponse, ParkedCounts};
use minishop_core::clock::{Clock, Timestamp};
use minishop_core::parking::State;
use minishop_core::refusal::Refusal;
use minishop_store::{PausedEndpoint, Store};
use prost::Message;

use crate::app::App;
use crate::call::Call;
use crate::reads::{fitting, read};
use crate::refusals;
use crate::token::List;

pub use announce::{announce, checked as checked_announce};
pub use audit::list as audit;
pub use dead_letters::{get as dead_letter, groups, list as dead_letters, parked_keys};
pub use operations::{control, get as operation, list as operations};
pub use redrive_discard::{checked, discard, redrive};
pub use status_feed::{StatusFeed, StatusFeedTask, StatusSubscriber};

/// Reads the pipeline's status.
pub async fn status(app: &App, call: &Call) -> Result<GetStatusResponse, Refusal> {
    read(call, read_status(&app.store, app.clock.as_ref())).await
}

/// Reads the backlog, the parked events and the paused endpoints.
async fn read_status(store: &Store, clock: &dyn Clock) -> minishop_store::Result<GetStatusResponse> {
    let outbox = store.outbox.stats().await?;
    let counts = store.lot.counts().await?;
    let (paused, now) = (store.endpoints.paused().await?, clock.now());
    let parked = |state| counts.get(&state).copied().map_or(0, count);
    Ok(GetStatusResponse {
        outbox_depth: count(outbox.depth),
        oldest_outbox_age_seconds: outbox.oldest.as_secs_f64(),
        parked: Some(ParkedCounts {
            retrying: parked(State::Retrying),
            waiting: parked(State::Waiting),
            dead: parked(State::Dead),
        }),
        paused_endpoints: paused.into_iter().map(|endpoint| paused_endpoint(endpoint, now)).collect(),
    })
}

fn paused_endpoint(row: PausedEndpoint, now: Timestamp) -> ops::PausedEndpoint {
    let PausedEndpoint { owner, endpoint, outage } = row;
    ops::PausedEndpoint {
        endpoint,
        worker: owner,
        state: if outage.next_probe_at <= now { "probing" } else { "paused" }.to_owned(),
        since: Some(outage.since.into()),
        reason: outage.why,
        next_probe_at: Some(outage.next_probe_at.into()),
    }
}

fn count(n: i64) -> u32 {
    u32::try_from(n.max(0)).unwrap_or(u32::MAX)
}

/// Decodes a page token; `None` for an empty one, the first page.
fn place<const N: usize>(call: &Call, list: List<'_>, token: &str) -> Result<Option<[u8; N]>, Refusal> {
    match token {
        "" => Ok(None),
        token => list.place(token).map(Some).ok_or_else(|| refusals::page_token_invalid(call.protocol)),
    }
}

/// Cuts rows to a page of `size`, or of as many entries as fit. One row more than `size` shows that a next page exists.
fn page<T, M: Message>(
    mut rows: Vec<T>,
    size: usize,
    list: List<'_>,
    place: impl Fn(&T) -> Vec<u8>,
    entry: impl Fn(T) -> M,
) -> (Vec<M>, String) {
    let mut beyond = rows.len() > size;
    rows.truncate(size);
    let places: Vec<Vec<u8>> = rows.iter().map(place).collect();
    let entries = fitting(rows.into_iter().map(entry));
    beyond |= entries.len() < places.len();
    let end = entries.len().checked_sub(1).map(|n| &places[n]);
    let token = end.filter(|_| beyond).map(|place| list.token(place)).unwrap_or_default();
    (entries, token)
}

/// Returns the rows to read for a page: one more, for `page`.
fn limit(size: usize) -> i64 {
    i64::try_from(size + 1).unwrap_or(i64::MAX)
}
