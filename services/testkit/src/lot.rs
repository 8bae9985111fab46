//! The parking lot, and what operators ask of it.

use bytes::Bytes;
use minishop_core::ids::{CorrelationId, OperationId};
use minishop_core::operation::Kind;
use minishop_core::parking::State;
use minishop_store::{Journal, NewOperation, ParkedEvent, RequestedBy, Selection, Store};

use crate::rows::{client, event_id, now, order_id, unique};

/// Returns a refused event at offset 42 of partition 3.
pub fn parked(record_key: &str, state: State, blocks: bool) -> ParkedEvent {
    ParkedEvent {
        record_key: Bytes::copy_from_slice(record_key.as_bytes()),
        blocks,
        state,
        event_id: event_id(),
        order_id: Some(order_id()),
        client_id: Some(client("a")),
        event_type: Some("orders.created".into()),
        needs_type: None,
        topic: "orders.created".into(),
        partition: 3,
        offset: 42,
        raw_key: Some(Bytes::from_static(b"c1")),
        raw_value: None,
        raw_headers: Bytes::from_static(&[0, 0, 0, 0]),
        error_class: Some("refused"),
        error_code: Some("DATA_INVALID"),
        error_message: Some("items is empty".into()),
        error_fingerprint: Some([9; 32]),
        failed_at: Some(now()),
    }
}

/// Parks events.
pub async fn park(store: &Store, consumer: &str, parked: Vec<ParkedEvent>) {
    let mut tx = store.inbox.begin(consumer).await.unwrap();
    tx.record(&Journal { parked, ..Journal::default() }).await.unwrap();
    tx.commit().await.unwrap();
}

/// Returns the operator `ana` of an anonymous client.
pub fn requested_by(reason: &str) -> RequestedBy {
    let correlation_id = CorrelationId::parse("corr-ops").unwrap();
    RequestedBy { client_id: client("anonymous"), operator: "ana".into(), reason: reason.into(), correlation_id }
}

/// Returns an id that no other process repeats, since a test's child processes begin operations too, and that is greater than
/// those before.
fn operation_id() -> OperationId {
    let (place, mut random) = (u32::try_from(unique()).unwrap(), [0; 10]);
    random[2..6].copy_from_slice(&place.to_be_bytes());
    random[6..].copy_from_slice(&rand::random::<[u8; 4]>());
    OperationId::new(now(), random)
}

/// Returns a new operation, of 100 events per second, that one failure in ten stops.
pub fn operation(kind: Kind, selection: Selection) -> NewOperation {
    NewOperation {
        id: operation_id(),
        kind,
        selection,
        filter: None,
        rate: 100,
        failure_ratio: 0.1,
        requested_by: requested_by("the shop is fixed"),
        at: now(),
    }
}
