//! Properties of every message.

use std::fmt::Debug;

use minishop_contracts::events::v1::{self as events, order_settled};
use minishop_contracts::events::{EnvelopeFields, decode_envelope, encode_created, encode_settled};
use minishop_contracts::json::{self, JsonError, Shaped};
use minishop_contracts::ops::v1 as ops;
use minishop_contracts::orders::v1::{self as orders, order};
use minishop_contracts::wkt::Timestamp;
use minishop_contracts::{Validate, query};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Asserts that a message survives a round trip through JSON and through bytes.
fn survives<T>(message: &T) -> Result<(), TestCaseError>
where
    T: Message + Debug + Default + PartialEq + Serialize + DeserializeOwned,
{
    let text = json::to_vec(message);
    let back: T = serde_json::from_slice(&text)
        .map_err(|error| TestCaseError::fail(format!("{error}: {}", String::from_utf8_lossy(&text))))?;
    prop_assert_eq!(&back, message);
    let back = T::decode(message.encode_to_vec().as_slice()).map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!(&back, message);
    Ok(())
}

/// Asserts that a command survives a round trip through the strict reader.
fn is_read_back<T>(message: &T) -> Result<(), TestCaseError>
where
    T: Message + Debug + Shaped + PartialEq + Serialize,
{
    match json::decode_command::<T>(&json::to_vec(message)) {
        Ok(back) => prop_assert_eq!(&back, message),
        Err(error) => prop_assert!(false, "{:?}", error),
    }
    Ok(())
}

fn amount() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(0.0),
        (0_u32..100_000_000).prop_map(|minor| f64::from(minor) / 100.0),
        proptest::num::f64::NORMAL | proptest::num::f64::ZERO | proptest::num::f64::SUBNORMAL,
    ]
}

fn time() -> impl Strategy<Value = Timestamp> {
    (-62_135_596_800_i64..=253_402_300_799, 0_i32..1_000_000_000).prop_map(|(seconds, nanos)| Timestamp { seconds, nanos })
}

fn status() -> impl Strategy<Value = i32> {
    (0_i32..=4).prop_map(|n| order::Status::try_from(n).expect("a status").into())
}

fn item() -> impl Strategy<Value = orders::OrderItem> {
    (any::<String>(), any::<i32>(), option::of(amount())).prop_map(|(product_id, qty, price)| orders::OrderItem {
        product_id,
        qty,
        price,
    })
}

fn create() -> impl Strategy<Value = orders::CreateOrderRequest> {
    (any::<String>(), vec(item(), 0..5), option::of(any::<String>()))
        .prop_map(|(customer_id, items, currency)| orders::CreateOrderRequest { customer_id, items, currency })
}

fn order() -> impl Strategy<Value = orders::Order> {
    (create(), any::<(String, String)>(), option::of(amount()), status(), any::<i32>(), option::of(time())).prop_map(
        |(create, (order_id, correlation_id), total, status, version, created_at)| orders::Order {
            order_id,
            customer_id: create.customer_id,
            items: create.items,
            total,
            currency: create.currency,
            status,
            version,
            created_at,
            correlation_id,
        },
    )
}

fn dead_letter() -> impl Strategy<Value = ops::DeadLetter> {
    (any::<[String; 7]>(), any::<[String; 4]>(), any::<(i32, i64, i32, i32, bool)>(), option::of(time()), option::of(time()))
        .prop_map(
            |(
                [id, event_id, r#type, topic, error_class, error_code, error_message],
                [key, order_id, error_fingerprint, state],
                (partition, offset, attempts, redrives, blocks_key),
                first,
                last,
            )| {
                ops::DeadLetter {
                    id,
                    event_id,
                    r#type,
                    topic,
                    partition,
                    offset,
                    error_class,
                    error_code,
                    error_message,
                    attempts,
                    first_failed_at: first,
                    last_failed_at: last,
                    key,
                    order_id,
                    error_fingerprint,
                    state,
                    blocks_key,
                    redrives,
                }
            },
        )
}

fn created() -> impl Strategy<Value = events::OrderCreated> {
    (create(), any::<String>(), option::of(amount())).prop_map(|(create, order_id, total)| events::OrderCreated {
        order_id,
        customer_id: create.customer_id,
        items: create
            .items
            .into_iter()
            .map(|i| events::OrderItem { product_id: i.product_id, qty: i.qty, price: i.price })
            .collect(),
        total,
        currency: create.currency,
    })
}

fn settled() -> impl Strategy<Value = events::OrderSettled> {
    let status = prop_oneof![
        Just(order_settled::Status::Processed),
        Just(order_settled::Status::Failed),
        Just(order_settled::Status::Cancelled),
    ];
    (any::<(String, String)>(), status, option::of(amount()), option::of(any::<String>())).prop_map(
        |((order_id, customer_id), status, total, currency)| events::OrderSettled {
            order_id,
            customer_id,
            status: status.into(),
            total,
            currency,
        },
    )
}

/// Text that an envelope accepts.
fn envelope_text() -> impl Strategy<Value = String> {
    "[^\u{0}]{1,255}"
}

proptest! {
    #[test]
    fn commands_and_answers_survive(
        create in create(),
        order in order(),
        status in status(),
        total in option::of(amount()),
        texts in any::<(String, String)>(),
        page_size in any::<i32>(),
    ) {
        survives(&create)?;
        is_read_back(&create)?;
        survives(&order)?;
        survives(&orders::CreateOrderResponse { order_id: texts.0.clone(), status, total })?;
        let get = orders::GetOrderRequest { order_id: texts.0.clone() };
        survives(&get)?;
        is_read_back(&get)?;
        survives(&orders::ListOrdersRequest {
            customer_id: texts.0.clone(),
            status,
            page_size,
            page_token: texts.1.clone(),
        })?;
        survives(&orders::ListOrdersResponse { orders: vec![order], next_page_token: texts.1 })?;
    }

    #[test]
    fn operations_survive(dead in dead_letter(), counts in any::<(u32, u32, u32, u32)>(), age in amount(), token in any::<String>()) {
        survives(&dead)?;
        survives(&ops::ListDeadLettersResponse { dead_letters: vec![dead], next_page_token: token.clone() })?;
        let filter = ops::DeadLetterFilter { topic: Some(token.clone()), ..Default::default() };
        survives(&ops::ListDeadLettersRequest { page_size: 7, page_token: token.clone(), key: Some(token.clone()), ..Default::default() })?;
        let redrive = ops::RedriveDeadLettersRequest {
            ids: vec![token.clone(), String::new()],
            filter: Some(filter),
            dry_run: counts.0 % 2 == 0,
            rate: Some(7),
            failure_ratio: Some(age),
            reason: token.clone(),
            operator: token.clone(),
        };
        survives(&redrive)?;
        is_read_back(&redrive)?;
        survives(&ops::GetStatusRequest {})?;
        survives(&ops::GetStatusResponse {
            outbox_depth: counts.0,
            oldest_outbox_age_seconds: age,
            parked: Some(ops::ParkedCounts { retrying: counts.1, waiting: counts.2, dead: counts.3 }),
            paused_endpoints: vec![ops::PausedEndpoint { reason: token, ..Default::default() }],
        })?;
    }

    #[test]
    fn events_survive(
        texts in [envelope_text(), envelope_text(), envelope_text()],
        occurred_at in time(),
        created in created(),
        settled in settled(),
    ) {
        let [event_id, correlation_id, idempotency_key] = &texts;
        let head = EnvelopeFields { event_id, occurred_at, correlation_id, idempotency_key };
        let bytes = encode_created(&head, &created);
        let envelope = decode_envelope(&bytes).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(envelope.event_id.as_ref(), event_id);
        prop_assert_eq!(envelope.occurred_at, occurred_at);
        prop_assert_eq!(envelope.correlation_id.as_ref(), correlation_id);
        prop_assert_eq!(envelope.idempotency_key.as_ref(), idempotency_key);
        let back = envelope.created().unwrap_or_else(|partial| partial.message);
        prop_assert_eq!(&back, &created);
        let typed: events::OrderCreatedEvent = serde_json::from_slice(&bytes).expect("the typed message reads it");
        survives(&typed)?;

        let bytes = encode_settled(&head, &settled).expect("a final status");
        let envelope = decode_envelope(&bytes).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let back = envelope.settled().unwrap_or_else(|partial| partial.message);
        prop_assert_eq!(&back, &settled);
    }

    #[test]
    fn checks_never_panic(
        mut create in create(),
        price in any::<f64>(),
        list in any::<(String, i32, i32, String)>(),
        id in any::<String>(),
    ) {
        create.items.push(orders::OrderItem { product_id: id.clone(), qty: 1, price: Some(price) });
        for violation in create.violations() {
            prop_assert!(!violation.json_field().contains('_'));
        }
        orders::GetOrderRequest { order_id: id }.violations();
        let (customer_id, status, page_size, page_token) = list;
        orders::ListOrdersRequest { customer_id, status, page_size, page_token }.violations();
    }

    #[test]
    fn reading_never_panics(bytes in vec(any::<u8>(), 0..200), text in any::<String>()) {
        let _ = json::decode_command::<orders::CreateOrderRequest>(&bytes);
        let _ = json::decode_command::<orders::CreateOrderRequest>(text.as_bytes());
        let _ = decode_envelope(&bytes);
        if let Err(partial) = query::decode::<orders::ListOrdersRequest>(&text) {
            partial.into_violations();
        }
    }

    #[test]
    fn a_body_with_one_changed_byte_is_read_or_refused(place in 0_usize..68, byte in any::<u8>()) {
        let mut body = crate::support::BASE.as_bytes().to_vec();
        body[place] = byte;
        if let Err(JsonError::Fields(partial)) = json::decode_command::<orders::CreateOrderRequest>(&body) {
            prop_assert!(!partial.into_violations().is_empty());
        }
    }
}
