//! Reads the pipeline's status.

use minishop_contracts::ops::v1::{self as ops, GetStatusResponse, ParkedCounts};
use minishop_core::clock::{Clock, Timestamp};
use minishop_core::parking::State;
use minishop_store::{PausedEndpoint, Store};

use crate::messages::count;

/// Reads the backlog, the parked events and the paused endpoints.
pub async fn read_status(store: &Store, clock: &dyn Clock) -> minishop_store::Result<GetStatusResponse> {
    let outbox = store.outbox.stats().await?;
    let counts = store.reads.parked_counts().await?;
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
