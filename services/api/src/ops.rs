//! The use cases of operators.

use minishop_contracts::ops::v1::{DeadLetter, GetStatusResponse, ListDeadLettersRequest, ListDeadLettersResponse, ParkedCounts};
use minishop_core::parking::State;
use minishop_core::refusal::Refusal;
use minishop_platform::store::DeadLetter as Row;

use crate::app::App;
use crate::call::Call;
use crate::orders::foreign_token;
use crate::reads::{page_size, read};
use crate::token::List;

/// Tells how much work waits.
pub async fn status(app: &App, call: &Call) -> Result<GetStatusResponse, Refusal> {
    let outbox = read(call, app.store.outbox.stats()).await?;
    let counts = read(call, app.store.lot.counts()).await?;
    let parked = |state| counts.get(&state).copied().map_or(0, count);
    Ok(GetStatusResponse {
        outbox_depth: count(outbox.depth),
        oldest_outbox_age_seconds: outbox.oldest.as_secs_f64(),
        parked: Some(ParkedCounts {
            retrying: parked(State::Retrying),
            waiting: parked(State::Waiting),
            dead: parked(State::Dead),
        }),
    })
}

/// Reads a page of dead letters, newest first.
pub async fn dead_letters(app: &App, call: &Call, request: &ListDeadLettersRequest) -> Result<ListDeadLettersResponse, Refusal> {
    let list = List(&["dead-letters"]);
    let before = match request.page_token.as_str() {
        "" => None,
        token => Some(list.place(token).map(i64::from_be_bytes).ok_or_else(|| foreign_token(call))?),
    };
    let size = page_size(request.page_size);
    let limit = i64::try_from(size + 1).unwrap_or(i64::MAX);
    let mut rows = read(call, app.store.lot.dead_letters(before, limit)).await?;
    let beyond = rows.len() > size;
    rows.truncate(size);
    let next_page_token = match rows.last() {
        Some(row) if beyond => list.token(&row.id.to_be_bytes()),
        _ => String::new(),
    };
    Ok(ListDeadLettersResponse { dead_letters: rows.into_iter().map(dead_letter).collect(), next_page_token })
}

fn dead_letter(row: Row) -> DeadLetter {
    let (topic, partition, offset) = row.position;
    DeadLetter {
        id: row.id.to_string(),
        event_id: row.event_id.to_string(),
        r#type: row.event_type.unwrap_or_default(),
        topic,
        partition,
        offset,
        error_class: row.error_class,
        error_code: row.error_code,
        error_message: row.error_message,
        attempts: row.attempts,
        first_failed_at: Some(row.first_failed_at.into()),
        last_failed_at: Some(row.last_failed_at.into()),
    }
}

fn count(n: i64) -> u32 {
    u32::try_from(n.max(0)).unwrap_or(u32::MAX)
}
