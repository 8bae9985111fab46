//! Decides what to do with a created event, given what the store knows. Pure.

use minishop_core::ids::{EventId, OrderId};
use minishop_core::order::Status;
use minishop_core::parking::DeadCode;
use minishop_store::KnownOrder;

use crate::event::decode::CreatedEvent;

/// The verdict on one created event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The order is as this event announced it: handle the event.
    Handle,
    /// The order is not in the store: adopt it, then handle it.
    Adopt,
    /// Another event announced the same order: no effect; the inbox row names the order.
    Duplicate(OrderId),
    /// The order is known, but its status or version is not what the event expects: a recorded no-op.
    Ignore,
    /// The event is a dead letter.
    Refuse(DeadCode, &'static str),
}

/// Judges an event. `by_id` is the order with its order id, `by_key` the order with its (client, key).
pub fn judge(event_id: EventId, event: &CreatedEvent, by_id: Option<&KnownOrder>, by_key: Option<&KnownOrder>) -> Verdict {
    match (by_id, by_key) {
        (Some(order), _) if order.client_id != event.head.client_id => {
            Verdict::Refuse(DeadCode::ClientMismatch, "the order belongs to another client")
        }
        (Some(order), _) if order.fingerprint != event.fingerprint => {
            Verdict::Refuse(DeadCode::DataMismatch, "the order is stored with other data")
        }
        (Some(order), _) if order.created_event_id != event_id => Verdict::Duplicate(order.order_id),
        (Some(order), _) if order.status == Status::Created && order.version == event.sequence => Verdict::Handle,
        (Some(_), _) => Verdict::Ignore,
        (None, Some(order)) if order.fingerprint == event.fingerprint => Verdict::Duplicate(order.order_id),
        (None, Some(_)) => {
            Verdict::Refuse(DeadCode::IdempotencyKeyReused, "the client used the idempotency key for another order")
        }
        (None, None) => Verdict::Adopt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minishop_core::idempotency::{Fingerprint, IdempotencyKey};
    use minishop_core::ids::{ClientId, CorrelationId};
    use minishop_core::order::Item;
    use minishop_core::order_head::OrderHead;

    fn id(n: u8) -> EventId {
        EventId::from_text(&format!("event-{n}"))
    }

    fn event() -> CreatedEvent {
        CreatedEvent {
            head: OrderHead {
                order_id: OrderId(id(9).0),
                client_id: ClientId::anonymous(),
                customer_id: "c1".into(),
                key: IdempotencyKey::parse("k1").expect("a good key"),
                correlation_id: CorrelationId::of_event(id(1)),
                currency: None,
                total_minor: 2100,
                created_at: minishop_core::clock::from_millis(0),
            },
            items: vec![Item { product_id: "p1".into(), qty: 2, price_minor: 1050 }],
            fingerprint: Fingerprint([7; 32]),
            sequence: 1,
            trace: None,
            event_type: "orders.created.v1".into(),
        }
    }

    fn known(event: &CreatedEvent) -> KnownOrder {
        KnownOrder {
            order_id: event.head.order_id,
            client_id: event.head.client_id.clone(),
            key: event.head.key.clone(),
            fingerprint: event.fingerprint,
            status: Status::Created,
            version: 1,
            created_event_id: id(1),
        }
    }

    #[test]
    fn the_event_that_announced_an_order_is_handled_once() {
        let event = event();
        let mut order = known(&event);
        assert_eq!(judge(id(1), &event, Some(&order), None), Verdict::Handle);
        (order.status, order.version) = (Status::Processed, 2);
        assert_eq!(judge(id(1), &event, Some(&order), None), Verdict::Ignore);
    }

    #[test]
    fn a_known_order_with_other_content_is_a_dead_letter() {
        let event = event();
        let other_client = KnownOrder { client_id: ClientId("a".into()), ..known(&event) };
        assert!(matches!(judge(id(1), &event, Some(&other_client), None), Verdict::Refuse(DeadCode::ClientMismatch, _)));
        let other_data = KnownOrder { fingerprint: Fingerprint([0; 32]), ..known(&event) };
        assert!(matches!(judge(id(1), &event, Some(&other_data), None), Verdict::Refuse(DeadCode::DataMismatch, _)));
    }

    #[test]
    fn another_event_of_the_same_command_is_a_duplicate() {
        let event = event();
        let order = known(&event);
        assert_eq!(judge(id(2), &event, Some(&order), None), Verdict::Duplicate(order.order_id));
        assert_eq!(judge(id(2), &event, None, Some(&order)), Verdict::Duplicate(order.order_id));
        let other = KnownOrder { fingerprint: Fingerprint([0; 32]), ..order };
        assert!(matches!(judge(id(2), &event, None, Some(&other)), Verdict::Refuse(DeadCode::IdempotencyKeyReused, _)));
    }

    #[test]
    fn an_unknown_order_is_adopted() {
        assert_eq!(judge(id(1), &event(), None, None), Verdict::Adopt);
    }
}
