//! Operators' reads of dead letters and parked keys.

use bytes::Bytes;
use minishop_bus::Headers;
use minishop_contracts::ops::v1::{
    DeadLetter, DeadLetterFilter, DeadLetterGroup, GetDeadLetterRequest, GetDeadLetterResponse, ListDeadLetterGroupsRequest,
    ListDeadLetterGroupsResponse, ListDeadLettersRequest, ListDeadLettersResponse, ListParkedKeysRequest, ListParkedKeysResponse,
    ParkedKey, RecordHeader,
};
use minishop_core::hex;
use minishop_core::ids::OrderId;
use minishop_core::refusal::Refusal;
use minishop_store::{Letter, LetterGroup, WholeLetter};

use crate::app::App;
use crate::call::Call;
use crate::messages::count;
use crate::pages::{Page, page_size};
use crate::refusals;

/// Reads a page of dead letters, newest first.
pub async fn list(app: &App, call: &Call, request: ListDeadLettersRequest) -> Result<ListDeadLettersResponse, Refusal> {
    let ListDeadLettersRequest { page_size: size, page_token, error_class, error_code, error_fingerprint, topic, key, order_id } =
        request;
    let parts = [&error_class, &error_code, &error_fingerprint, &topic, &key, &order_id];
    let mut name = vec!["dead-letters", &call.client.0];
    name.extend(parts.map(|part| part.as_deref().unwrap_or_default()));
    let page = Page::of(call, &name, size, &page_token)?;
    let filter = filter(DeadLetterFilter {
        error_class: error_class.clone(),
        error_code: error_code.clone(),
        error_fingerprint: error_fingerprint.clone(),
        topic: topic.clone(),
        key: key.clone(),
        order_id: order_id.clone(),
    });
    let rows = call.read(app.store.operations.dead_letters(&filter, page.after, page.limit())).await?;
    let (dead_letters, next_page_token) = page.cut(rows, |row| row.id, dead_letter);
    Ok(ListDeadLettersResponse { dead_letters, next_page_token })
}

/// Reads one event of the parking lot with its original bytes.
pub async fn get(app: &App, call: &Call, request: GetDeadLetterRequest) -> Result<GetDeadLetterResponse, Refusal> {
    let id = parse_id(&request.id).ok_or_else(refusals::dead_letter_not_found)?;
    let whole = call.read(app.store.operations.dead_letter(id)).await?.ok_or_else(refusals::dead_letter_not_found)?;
    Ok(whole_letter(whole))
}

/// Groups dead letters by their error.
pub async fn groups(
    app: &App,
    call: &Call,
    request: ListDeadLetterGroupsRequest,
) -> Result<ListDeadLetterGroupsResponse, Refusal> {
    let size = i64::try_from(page_size(request.page_size)).unwrap_or(i64::MAX);
    let groups = call.read(app.store.operations.dead_letter_groups(size)).await?;
    Ok(ListDeadLetterGroupsResponse { groups: groups.into_iter().map(group).collect() })
}

/// Reads a page of the keys with parked events, the longest waiting first.
pub async fn parked_keys(app: &App, call: &Call, request: ListParkedKeysRequest) -> Result<ListParkedKeysResponse, Refusal> {
    let page = Page::of(call, &["parked-keys", &call.client.0], request.page_size, &request.page_token)?;
    let rows = call.read(app.store.operations.parked_keys(page.after, page.limit())).await?;
    let (keys, next_page_token) = page.cut(rows, |row| row.head, parked_key);
    Ok(ListParkedKeysResponse { keys, next_page_token })
}

/// Parses a dead letter's id; accepts it only as it is printed.
pub(super) fn parse_id(text: &str) -> Option<i64> {
    text.parse::<i64>().ok().filter(|id| id.to_string() == text && *id > 0)
}

/// Converts a validated filter to the store's.
pub(super) fn filter(filter: DeadLetterFilter) -> minishop_store::DeadLetterFilter {
    let DeadLetterFilter { error_class, error_code, error_fingerprint, topic, key, order_id } = filter;
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    minishop_store::DeadLetterFilter {
        error_class: given(error_class),
        error_code: given(error_code),
        error_fingerprint: given(error_fingerprint).map(|text| hex::decode(&text).into()),
        topic: given(topic),
        record_key: given(key).map(Bytes::from),
        order_id: given(order_id).and_then(|id| OrderId::parse(&id)),
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn dead_letter(row: Letter) -> DeadLetter {
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
        key: lossy(&row.record_key),
        order_id: row.order_id.map(|id| id.to_string()).unwrap_or_default(),
        error_fingerprint: row.error_fingerprint.map(|digest| hex::encode(&digest)).unwrap_or_default(),
        state: row.state,
        blocks_key: row.blocks,
        redrives: row.redrives,
    }
}

fn whole_letter(row: WholeLetter) -> GetDeadLetterResponse {
    let headers = Headers::decode(&row.raw_headers).unwrap_or_default();
    GetDeadLetterResponse {
        dead_letter: Some(dead_letter(row.letter)),
        raw_key: row.raw_key.map(Into::into),
        raw_value: row.raw_value.map(Into::into),
        headers: headers.0.into_iter().map(|(name, value)| RecordHeader { name, value: value.map(Into::into) }).collect(),
        parked_at: Some(row.parked_at.into()),
        next_attempt_at: row.next_attempt_at.map(Into::into),
        waiting: count(row.waiting),
        order_status: row.order_status.unwrap_or_default(),
    }
}

fn group(row: LetterGroup) -> DeadLetterGroup {
    DeadLetterGroup {
        error_fingerprint: row.error_fingerprint.map(|digest| hex::encode(&digest)).unwrap_or_default(),
        error_class: row.error_class,
        error_code: row.error_code,
        error_message: row.error_message,
        count: count(row.count),
        first_failed_at: Some(row.first_failed_at.into()),
        last_failed_at: Some(row.last_failed_at.into()),
        example_id: row.example.to_string(),
    }
}

fn parked_key(row: minishop_store::ParkedKey) -> ParkedKey {
    ParkedKey {
        key: lossy(&row.record_key),
        head_id: row.head.to_string(),
        head_state: row.state,
        error_code: row.error_code,
        attempts: row.attempts,
        since: Some(row.since.into()),
        next_attempt_at: row.next_attempt_at.map(Into::into),
        waiting: count(row.waiting),
        needs_type: row.needs_type.unwrap_or_default(),
    }
}
